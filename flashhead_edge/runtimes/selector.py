"""Which runtime is the best one here, and why each of the others is not.

A table of candidates, most preferred first. Each says what it is good for, what speaks against it on a device, and what
is missing of it there; the first against which nothing speaks is chosen. Nothing is imported that is not chosen, and
what somebody asks for by name is never replaced by something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from flashhead_edge.errors import OptionError, RuntimeUnavailableError, did_you_mean
from flashhead_edge.platforms.detection import DeviceFacts, detect
from flashhead_edge.platforms.jetpack import version_numbers
from flashhead_edge.platforms.packages import ONNX_RUNTIMES, installed_onnx_runtimes
from flashhead_edge.platforms.providers import ProviderFacts, try_provider

Purpose = Literal["text", "head", "serve"]
#: What a runtime is wanted for: whole texts on the device, a head alone under somebody's own decoder, or a server.
PURPOSES: tuple[Purpose, ...] = ("text", "head", "serve")
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
#: Builds of ONNX Runtime with code for Jetson's GPUs, by JetPack's major version. PyPI's build for aarch64 has none for
#: 8.7 and 11.0 (onnxruntime-gpu 1.31.1: 8.9, 9.0, 12.0 and 12.1, and no PTX).
_JETSON_INDEXES = {6: "https://pypi.jetson-ai-lab.io/jp6/cu126", 7: "https://pypi.jetson-ai-lab.io/sbsa/cu130"}
_Obstacle = Callable[[DeviceFacts], str | None]


@dataclass(frozen=True)
class Candidate:
    """A way to run a model.

    Attributes:
        name: Unique, such as "onnxruntime-cuda".
        runtime: Name of the runtime.
        provider: Execution provider of ONNX Runtime; None for others.
        purposes: What it can do.
        because: Why it is chosen where nothing speaks against it.
        unfit: What on the device speaks against it, whatever is installed; None for nothing.
        broken: What does not work of what is installed; None for nothing.
        install: Commands that install it.
        packages: Packages of which one must be installed.
        only_if_asked: Why it is not chosen by itself here; None where it may be.
        graph: Graph that a bundle must have, or None.
    """

    name: str
    runtime: str
    provider: str | None
    purposes: tuple[Purpose, ...]
    because: str
    unfit: _Obstacle
    broken: _Obstacle
    install: Callable[[DeviceFacts], tuple[str, ...]]
    packages: tuple[str, ...] = ()
    only_if_asked: _Obstacle = lambda facts: None
    graph: str | None = None

    def missing(self, facts: DeviceFacts) -> str | None:
        """What is not installed of it, or does not work; None for nothing.

        Args:
            facts: The device.
        """
        if self.packages and not any(name in facts.packages for name in self.packages):
            return f"{' or '.join(self.packages[:2])} is not installed"
        return self.broken(facts)


@dataclass(frozen=True)
class Choice:
    """A candidate and what came of it.

    Attributes:
        candidate: The candidate.
        chosen: Whether it is the one.
        usable: Whether it could be used.
        reason: Why it was chosen, or was not.
    """

    candidate: Candidate
    chosen: bool
    usable: bool
    reason: str

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        item = self.candidate
        return {
            "name": item.name,
            "runtime": item.runtime,
            "provider": item.provider,
            "chosen": self.chosen,
            "usable": self.usable,
            "reason": self.reason,
        }


def judge(
    facts: DeviceFacts, purpose: Purpose, *, graphs: frozenset[str] | None = None, wanted: str | None = None
) -> list[Choice]:
    """Judge every candidate.

    Args:
        facts: The device.
        purpose: What the runtime is wanted for.
        graphs: Names of the graphs that the bundle has; None where no bundle is known.
        wanted: Name of a runtime or candidate; the others are then not chosen.

    Returns:
        A choice for each candidate, most preferred first; at most one is chosen.

    Raises:
        OptionError: There is no such purpose, or nothing of the wanted name.
    """
    if purpose not in PURPOSES:
        raise OptionError(f"There is no purpose {purpose!r}.", hint=did_you_mean(purpose, PURPOSES))
    names = {name for item in CANDIDATES for name in (item.name, item.runtime)}
    if wanted is not None and wanted not in names:
        raise OptionError(f"There is no runtime {wanted!r}.", hint=did_you_mean(wanted, names))
    choices: list[Choice] = []
    for item in CANDIDATES:
        obstacle = _obstacle(item, facts, purpose, graphs)
        open_to_choice = not any(choice.chosen for choice in choices)
        if obstacle is not None:
            choices.append(Choice(item, False, False, obstacle))
        elif wanted is not None and wanted not in (item.name, item.runtime):
            choices.append(Choice(item, False, True, f"{wanted} was asked for"))
        elif wanted is None and (reason := item.only_if_asked(facts)):
            choices.append(Choice(item, False, True, reason))
        elif open_to_choice:
            choices.append(Choice(item, True, True, item.because if wanted is None else "it was asked for"))
        else:
            best = next(choice.candidate.name for choice in choices if choice.chosen)
            choices.append(Choice(item, False, True, f"{best} is preferred"))
    return choices


def select(
    facts: DeviceFacts, purpose: Purpose, *, graphs: frozenset[str] | None = None, wanted: str | None = None
) -> Choice:
    """The best candidate, or the best of the runtime that is wanted.

    Args:
        facts: The device.
        purpose: What the runtime is wanted for.
        graphs: Names of the graphs that the bundle has; None where no bundle is known.
        wanted: Name of a runtime or candidate, or None for the best.

    Raises:
        OptionError: There is no such purpose, or nothing of the wanted name.
        RuntimeUnavailableError: Something speaks against every candidate.
    """
    choices = judge(facts, purpose, graphs=graphs, wanted=wanted)
    chosen = next((choice for choice in choices if choice.chosen), None)
    if chosen is not None:
        return chosen
    asked = [choice for choice in choices if wanted in (None, choice.candidate.name, choice.candidate.runtime)]
    fitting = [choice for choice in asked if choice.candidate.unfit(facts) is None]
    commands = fitting[0].candidate.install(facts) if fitting else ()
    raise RuntimeUnavailableError(
        "No runtime can be used here." if wanted is None else f"The runtime {wanted!r} cannot be used here.",
        found="; ".join(f"{choice.candidate.name}: {choice.reason}" for choice in asked),
        hint=f"install it: {' && '.join(commands)}" if commands else "flashhead-edge runtimes shows the others",
    )


def device_facts() -> DeviceFacts:
    """Facts to choose by where time counts: of ONNX Runtime's providers only one that a GPU would need is tried."""
    facts = detect(try_providers=False)
    if facts.has_nvidia_gpu and "onnxruntime-gpu" in facts.packages:
        return replace(facts, providers=(try_provider(CUDA), ProviderFacts(CPU, True)))
    return facts


def _obstacle(item: Candidate, facts: DeviceFacts, purpose: Purpose, graphs: frozenset[str] | None) -> str | None:
    """What speaks against a candidate."""
    if purpose not in item.purposes:
        return _CANNOT[purpose].format(runtime=item.runtime)
    if (reason := item.unfit(facts)) or (reason := item.missing(facts)):
        return reason
    if item.graph is not None and graphs is not None and item.graph not in graphs:
        return f"the bundle has no graph {item.graph} (export it with --target tensorrt or all)"
    return None


_CANNOT: Mapping[Purpose, str] = {
    "text": "{runtime} does not run whole models on the device",
    "head": "{runtime} does not run a head alone",
    "serve": "{runtime} is no server",
}


def _nothing(facts: DeviceFacts) -> str | None:
    return None


def _no_gpu(facts: DeviceFacts) -> str | None:
    return None if facts.has_nvidia_gpu else "there is no NVIDIA GPU"


def _no_server_gpu(facts: DeviceFacts) -> str | None:
    return "a Jetson is served by its own runtimes" if facts.jetson is not None else _no_gpu(facts)


def _no_cuda_build(facts: DeviceFacts) -> str | None:
    """Whether ONNX Runtime is built with CUDA for this device at all."""
    if facts.jetson is None:
        return _no_gpu(facts)
    if version_numbers(facts.jetson.jetpack or "")[:1] >= (6,):
        return None
    named = f"JetPack {facts.jetson.jetpack}" if facts.jetson.jetpack else "this board"
    return f"there is no current build of ONNX Runtime with CUDA for {named}"


def _no_polygraphy(facts: DeviceFacts) -> str | None:
    return None if "polygraphy" in facts.packages else "polygraphy is not installed"


def _provider(name: str) -> _Obstacle:
    """ONNX Runtime is installed once, and its provider loads, as far as it was tried."""

    def broken(facts: DeviceFacts) -> str | None:
        installed = installed_onnx_runtimes(facts.packages)
        if len(installed) > 1:
            return f"{', '.join(installed)} overwrite each other"
        tried = next((item for item in facts.providers or () if item.name == name), None)
        if facts.providers is not None and tried is None:
            return f"the installed ONNX Runtime has no {name}"
        if tried is not None and tried.loads is False:
            return f"{name} does not load: {tried.reason}"
        return None

    return broken


def _gpu_commands(facts: DeviceFacts) -> tuple[str, ...]:
    major = version_numbers((facts.jetson.jetpack if facts.jetson else None) or "0")[0]
    if index := _JETSON_INDEXES.get(major):
        return (f"pip install onnxruntime-gpu --index-url {index}", "pip install flashhead-edge jinja2")
    return ("pip install 'flashhead-edge[gpu]'",)


def _commands(*commands: str) -> Callable[[DeviceFacts], tuple[str, ...]]:
    return lambda facts: commands


#: Most preferred first.
CANDIDATES: tuple[Candidate, ...] = (
    Candidate(
        "vllm",
        "vllm",
        None,
        ("serve",),
        "there is an NVIDIA GPU, and vLLM serves many requests at once",
        _no_server_gpu,
        _nothing,
        _commands("pip install 'flashhead-edge[vllm]'"),
        packages=("vllm",),
    ),
    Candidate(
        "tensorrt",
        "tensorrt",
        None,
        ("head",),
        "an engine is built for this very GPU",
        _no_gpu,
        _no_polygraphy,
        _commands("pip install 'flashhead-edge[tensorrt]'"),
        packages=("tensorrt", "tensorrt-rtx"),
        graph="head_tensorrt",
    ),
    Candidate(
        "onnxruntime-tensorrt",
        "onnxruntime",
        TENSORRT,
        ("head",),
        "TensorRT runs the head through ONNX Runtime",
        _no_cuda_build,
        _provider(TENSORRT),
        _gpu_commands,
        packages=("onnxruntime-gpu",),
        graph="head_tensorrt",
    ),
    Candidate(
        "onnxruntime-cuda",
        "onnxruntime",
        CUDA,
        ("text", "head"),
        "there is an NVIDIA GPU",
        _no_cuda_build,
        _provider(CUDA),
        _gpu_commands,
        packages=("onnxruntime-gpu",),
    ),
    Candidate(
        "onnxruntime-cpu",
        "onnxruntime",
        CPU,
        ("text", "head"),
        "it runs everywhere",
        _nothing,
        _provider(CPU),
        _commands("pip install 'flashhead-edge[cpu]'"),
        packages=ONNX_RUNTIMES,
    ),
    Candidate(
        "openvino",
        "openvino",
        None,
        ("text", "head"),
        "OpenVINO is installed, and ONNX Runtime is not",
        _nothing,
        _nothing,
        _commands("pip install 'flashhead-edge[openvino]'"),
        packages=("openvino",),
    ),
    Candidate(
        "torch",
        "torch",
        None,
        ("head",),
        "PyTorch is installed, and nothing that is made for the device",
        _nothing,
        _nothing,
        _commands("pip install 'flashhead-edge[torch]'"),
        packages=("torch",),
    ),
    Candidate(
        "reference",
        "reference",
        None,
        ("head",),
        "it was asked for",
        _nothing,
        _nothing,
        _commands(),
        only_if_asked=lambda facts: "it is the oracle of the tests, and slow",
    ),
)
