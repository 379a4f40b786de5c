"""What is measured, and what a measurement says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flashhead_edge.errors import OptionError, did_you_mean
from flashhead_edge.runtimes.session import CPU_PROVIDER

#: Heads over the bundle's body. "two-stage-portable" is the two-stage head without the native library.
HEADS = ("two-stage", "two-stage-portable", "dense-fp32", "dense-int8", "dense-int4")
#: Execution providers of ONNX Runtime by what decodes; a GPU leaves the arithmetic of shapes to the processor.
DEVICES = {"cpu": (CPU_PROVIDER,), "cuda": ("CUDAExecutionProvider", CPU_PROVIDER)}
#: What is measured unless something else is asked for, the baseline last.
DEFAULT_HEADS = ("two-stage", "dense-fp32", "dense-int4", "dense-int8")


@dataclass(frozen=True)
class Competitor:
    """Another program that decodes the same model.

    Attributes:
        name: "llama.cpp" or "onnxruntime-genai".
        path: llama.cpp's ``llama-bench`` or the folder that holds it; a model folder of onnxruntime-genai.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class BenchOptions:
    """What is measured; every combination of the lists is a row.

    Attributes:
        prompt_tokens: Lengths of prompts that are read, tests ``pp``; may be empty.
        new_tokens: Numbers of tokens that are generated after a short prompt, tests ``tg``; may be empty.
        batches: Texts of the same length side by side.
        threads: Threads of the operators.
        heads: Names out of :data:`HEADS`.
        rounds: How often everything is measured, each in its turn.
        against: Other programs, batch 1 only.
        gguf: The same model for llama.cpp.
        device: "cpu", or "cuda" for an NVIDIA GPU; other programs, and heads on the native library, are for the CPU.

    Raises:
        OptionError: A value is out of range or unknown.
    """

    prompt_tokens: Sequence[int] = (512,)
    new_tokens: Sequence[int] = (128,)
    batches: Sequence[int] = (1,)
    threads: Sequence[int] = (1,)
    heads: Sequence[str] = DEFAULT_HEADS
    rounds: int = 5
    against: Sequence[Competitor] = ()
    gguf: Path | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "new_tokens", "batches", "threads"):
            if any(value < 1 for value in getattr(self, name)):
                raise OptionError(
                    f"{name.replace('_', ' ').capitalize()} are out of range.",
                    found=", ".join(map(str, getattr(self, name))),
                    expected="1 or more each",
                )
        if not self.prompt_tokens and not self.new_tokens:
            raise OptionError("There is nothing to measure.", expected="prompt tokens, new tokens, or both")
        if not (self.batches and self.threads and self.heads):
            raise OptionError("There is nothing to measure.", expected="at least one batch, thread count and head")
        if self.rounds < 1:
            raise OptionError("The number of rounds is out of range.", found=self.rounds, expected="1 or more")
        for head in self.heads:
            if head not in HEADS:
                raise OptionError(f"There is no head {head!r} to measure.", hint=did_you_mean(head, HEADS))
        if self.device not in DEVICES:
            raise OptionError(f"There is no device {self.device!r}.", hint=did_you_mean(self.device, DEVICES))
        if self.device != "cpu" and (self.against or "two-stage-portable" in self.heads):
            raise OptionError(
                "This is measured on the CPU only.",
                found=", ".join([*(item.name for item in self.against), *self.heads]),
                expected="no other programs, and no two-stage-portable, which on a GPU is two-stage",
            )
        if self.gguf is None and any(competitor.name == "llama.cpp" for competitor in self.against):
            raise OptionError(
                "llama.cpp needs the model as a .gguf file.", expected="--gguf FILE with the model of the bundle"
            )

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers of ONNX Runtime."""
        return DEVICES[self.device]

    @property
    def tests(self) -> list[Test]:
        """Prompt tests, then generation tests."""
        reading = [Test("pp", count, batch) for batch in self.batches for count in self.prompt_tokens]
        return reading + [Test("tg", count, batch) for batch in self.batches for count in self.new_tokens]


@dataclass(frozen=True)
class Test:
    """One thing that is timed.

    Attributes:
        kind: "pp" for reading a prompt, "tg" for generating token by token, as llama-bench names them.
        tokens: Tokens of a text.
        batch: Texts side by side.
    """

    __test__ = False  # for pytest, which collects names like this one

    kind: str
    tokens: int
    batch: int = 1

    @property
    def name(self) -> str:
        """As llama-bench writes it, such as "tg128"."""
        return f"{self.kind}{self.tokens}"


@dataclass(frozen=True)
class BenchRow:
    """What was measured of one head in one test; None where it was not, or does not apply.

    Attributes:
        model: Name of the bundle's model.
        test: "pp512", "tg128", ...
        head: A head of :data:`HEADS`, or the other program's name.
        runtime: What executed it, with its version.
        batch: Texts side by side.
        threads: Threads of the operators.
        tokens_per_second_p50: Median over rounds, of all texts together.
        tokens_per_second_min: Slowest round.
        tokens_per_second_max: Fastest round.
        ratio_p50: Median over rounds of the speed against the baseline's in the same round.
        baseline: The head that ratios are against.
        rounds: Rounds measured.
        other_load: Cores that other programs kept busy meanwhile, on average.
        heavy_load: Whether that is so much that the row should not be relied on.
        cpu_model: Processor that measured.
        native_kernels: Kernels of the native library, where it is usable.
        version: Of this package.
        step_ms_p50: Median of a decode step, milliseconds.
        step_ms_p10: Its 10th percentile.
        step_ms_p90: Its 90th percentile.
        head_ms_p50: Median over rounds of what a step takes longer than the body alone, milliseconds.
        peak_rss_bytes: Most memory that a process of its own had resident while it did the largest test; a GPU's own
            memory does not count.
        agreement: Share of positions of the dense fp32 head's texts at which the head wants the same token.
        energy_j_per_token: Energy of the whole device or package a token, joules.
        energy_source: What measured it.
        gpu: GPU that decoded; None for the processor.
    """

    model: str
    test: str
    head: str
    runtime: str
    batch: int
    threads: int
    tokens_per_second_p50: float
    tokens_per_second_min: float
    tokens_per_second_max: float
    ratio_p50: float
    baseline: str
    rounds: int
    other_load: float
    heavy_load: bool
    cpu_model: str
    native_kernels: str | None
    version: str
    step_ms_p50: float | None = None
    step_ms_p10: float | None = None
    step_ms_p90: float | None = None
    head_ms_p50: float | None = None
    peak_rss_bytes: int | None = None
    agreement: float | None = None
    energy_j_per_token: float | None = None
    energy_source: str | None = None
    gpu: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON takes it."""
        return asdict(self)
