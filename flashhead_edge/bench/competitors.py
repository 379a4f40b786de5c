"""Other programs that decode the same model, run for real, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from flashhead_edge.bench.options import Competitor, Test
from flashhead_edge.errors import OptionalDependencyError, OptionError, RuntimeUnavailableError, did_you_mean
from flashhead_edge.memory import peak_rss_bytes_of

COMPETITORS = ("llama.cpp", "onnxruntime-genai")
_LLAMA_BENCH = "llama-bench"
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Outcome:
    """What another program measured.

    Attributes:
        tokens_per_second: By the name of a test.
        runtime: The program and its version.
        peak_rss_bytes: Most memory that it had resident; None where the system does not say.
    """

    tokens_per_second: dict[str, float]
    runtime: str
    peak_rss_bytes: int | None


def parse_competitor(text: str) -> Competitor:
    """Read ``NAME=PATH``.

    Args:
        text: Such as "llama.cpp=/opt/llama.cpp/build/bin".

    Returns:
        The competitor.

    Raises:
        OptionError: It is not of that form, the name is unknown, or nothing is at the path.
    """
    name, separator, path = text.partition("=")
    if not separator:
        raise OptionError("Another program is given as NAME=PATH.", found=text, expected=", ".join(COMPETITORS))
    if name not in COMPETITORS:
        raise OptionError(f"There is no program {name!r} to measure.", hint=did_you_mean(name, COMPETITORS))
    if not Path(path).exists():
        raise OptionError(f"{path} does not exist.", expected=f"where {name} is")
    return Competitor(name, Path(path))


def run_competitor(competitor: Competitor, tests: Sequence[Test], *, threads: int, gguf: Path | None) -> Outcome:
    """Measure each test once.

    Args:
        competitor: The program.
        tests: Of batch 1.
        threads: Threads of the operators.
        gguf: The model, for llama.cpp.

    Returns:
        What it measured.

    Raises:
        OptionError: The program is not at its path.
        OptionalDependencyError: onnxruntime-genai is not installed.
        RuntimeUnavailableError: The program failed.
    """
    if competitor.name == "llama.cpp":
        assert gguf is not None  # BenchOptions asks for it
        command = [str(llama_bench(competitor.path)), "-m", str(gguf), "-t", str(threads), "-r", "1", "-o", "json"]
        for option, kind in (("-p", "pp"), ("-n", "tg")):
            command += [option, ",".join(str(test.tokens) for test in tests if test.kind == kind) or "0"]
        said, peak = _run(command)
        rows = json.loads(said)
        speeds = {
            f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}": float(row["avg_ts"]) for row in rows
        }
        return Outcome(speeds, f"llama.cpp {rows[0]['build_commit']}, {rows[0]['model_type']}", peak)
    if find_spec("onnxruntime_genai") is None:
        raise OptionalDependencyError("onnxruntime_genai", "export", "Measuring onnxruntime-genai")
    worker = [sys.executable, "-m", "flashhead_edge.bench.genai_worker", str(competitor.path), str(threads)]
    said, peak = _run([*worker, *(test.name for test in tests)])
    answer = json.loads(said)
    return Outcome(answer["tokens_per_second"], f"onnxruntime-genai {answer['version']}", peak)


def llama_bench(path: Path) -> Path:
    """Find llama.cpp's benchmark program.

    Args:
        path: The program, or a folder with it, its ``bin`` or its ``build/bin``.

    Returns:
        The program.

    Raises:
        OptionError: It is not there.
    """
    if path.is_file():
        return path
    for folder in (path, path / "bin", path / "build" / "bin"):
        if (folder / _LLAMA_BENCH).is_file():
            return folder / _LLAMA_BENCH
    raise OptionError(f"There is no {_LLAMA_BENCH} in {path}.", hint="build llama.cpp's target llama-bench")


def _run(command: Sequence[str]) -> tuple[str, int | None]:
    """Standard output of a program, and the most memory that it had resident, in bytes, where the system says."""
    peak = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while True:
            # Looked at while it runs: what is reported of an ended child counts ours from before the program started.
            peak = peak_rss_bytes_of(process.pid) or peak
            try:
                said, complaint = process.communicate(timeout=_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
    if process.returncode:
        raise RuntimeUnavailableError(
            f"{Path(command[0]).name} failed.",
            found=" | ".join(complaint.strip().splitlines()[-3:]) or f"exit status {process.returncode}",
            hint=f"try it by hand: {' '.join(command)}",
        )
    return said, peak
