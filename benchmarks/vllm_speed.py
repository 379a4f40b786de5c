"""Decoding speed of vLLM with the dense and the two-stage head, measured in turns.

Every engine is a process of its own, and only one of them works at a time: at each batch size they generate in turn, so
that what else the machine does meets them alike. A turn is greedy decoding of as many texts as the batch has, of a
fixed length; the time until the first tokens is measured and taken off. With ``--cpu-time`` engines have one thread
each, and what is measured is the time that it works: other work on the machine then matters little. With ``--gpu``
the engines share one GPU, each as vLLM would start it: a compiled body, CUDA graphs, a process of its own beside.

Run with the Python of an environment that has vLLM (docs/vllm.md, Speed)::

    .venv-vllm/bin/python -m benchmarks.vllm_speed [--model gemma3-270m] [--rounds 5]
    python -m benchmarks.vllm_speed --gpu --model llama-3.2-1b
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.models import MODELS, RESULTS, WORK
from benchmarks.vllm_models import SIZES, is_random, published_folder, sized_folders, standard_folder
from flashhead_edge.platforms.host import host_facts

DENSE, NATIVE, TORCH, TRITON = "dense", "two-stage, native library", "two-stage, torch only", "two-stage, Triton"
ENGINES, GPU_ENGINES = (DENSE, NATIVE, TORCH), (DENSE, TRITON)
BATCHES = (1, 2, 4, 8, 16, 32)
TEXTS = Path(__file__).with_name("texts")
FILE, GPU_FILE = RESULTS / "vllm-speed.json", RESULTS / "vllm-speed-gpu.json"
#: Tokens of a prompt; of a text, on a CPU and on a GPU.
_PROMPT, _TOKENS, _GPU_TOKENS = 32, 24, 256
#: Greatest batch of the torch path, which is far beyond what it is used for.
_TORCH_BATCH = 4
#: What every engine runs under: no network, in one process, and cache enough for the largest batch.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
}
#: Seconds that a worker tells, by what they are of.
_PARTS = {"step": "seconds", "head": "head_seconds", "sampler": "sampler_seconds"}
#: Part of a GPU's memory for one of two engines.
GPU_MEMORY = 0.3


class Engine:
    """A worker process.

    Args:
        name: One of the engines' names.
        model: Name of the model.
        sampling: Settings of every request, for ``SamplingParams``.
        compiled: Whether vLLM compiles the body, as it does by default; loading takes longer.
        cpu_time: Whether seconds are those of one processor that works for one thread, instead of the wall's.
        threshold: Whether the row threshold holds; without it all steps take the two-stage head.
        gpu: Whether it runs on a GPU.
    """

    def __init__(
        self,
        name: str,
        model: str,
        sampling: dict[str, Any],
        *,
        compiled: bool,
        cpu_time: bool,
        threshold: bool,
        gpu: bool,
    ) -> None:
        folder = folders(model)[name != DENSE]
        options: dict[str, Any] = {"enforce_eager": not compiled, "max_model_len": 512, "dtype": "bfloat16", "seed": 0}
        if is_random(model):
            options |= {"load_format": "dummy", "skip_tokenizer_init": True}
        if gpu:
            sizes = {"cudagraph_capture_sizes": list(BATCHES)}
            options |= {
                "gpu_memory_utilization": GPU_MEMORY,
                "max_num_seqs": max(BATCHES),
                "compilation_config": sizes,
            }
        if name != DENSE and not threshold:
            options["hf_overrides"] = {"flash_head_max_rows": 1 << 20}
        job = {"model": str(folder), "options": options, "sampling": sampling, "cpu_time": cpu_time, "watch": not gpu}
        environment = {**os.environ, **_ENVIRONMENT, "FLASHHEAD_EDGE_NATIVE": "0" if name == TORCH else "1"}
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(gpu))
        if cpu_time:
            environment |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "0"}
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.vllm_speed_worker", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(WORK / "vllm-speed.log").open("ab"),
            text=True,
            env=environment,
        )

    def wait(self) -> dict[str, Any]:
        """Until the engine is loaded; what it says of itself."""
        return self._read()

    def turn(self, prompts: list[list[int]], tokens: int) -> dict[str, Any]:
        """Generate."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompts": prompts, "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The engine {self.name!r} ended; see {WORK / 'vllm-speed.log'}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Measure one model and write its part of the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma3-270m", choices=[*MODELS, *SIZES])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=float, default=300, help="seconds after which nothing more begins")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--engines", nargs="+")
    parser.add_argument("--gpu", action="store_true", help="on a GPU, with a compiled body")
    parser.add_argument("--sampling", type=json.loads, default={"temperature": 0}, help="SamplingParams, as JSON")
    parser.add_argument("--compiled", action="store_true", help="with a compiled body, as vLLM does by default")
    parser.add_argument("--threshold", action="store_true", help="let the row threshold hold")
    parser.add_argument(
        "--cpu-time", action="store_true", help="one thread, and the seconds that it works: for a busy machine"
    )
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    arguments.compiled |= arguments.gpu
    arguments.engines = arguments.engines or list(GPU_ENGINES if arguments.gpu else ENGINES)
    arguments.output = arguments.output or (GPU_FILE if arguments.gpu else FILE)
    tokens = _GPU_TOKENS if arguments.gpu else _TOKENS
    began, load = time.monotonic(), os.getloadavg()[0]
    engines = [
        Engine(
            name,
            arguments.model,
            arguments.sampling,
            compiled=arguments.compiled,
            cpu_time=arguments.cpu_time,
            threshold=arguments.threshold,
            gpu=arguments.gpu,
        )
        for name in arguments.engines
    ]
    (version,) = {engine.wait()["vllm"] for engine in engines}
    prompts = read_prompts(arguments.model, max(arguments.batches))
    for batch in arguments.batches:
        if time.monotonic() - began > arguments.limit:
            break
        turns = take_turns(engines, prompts[:batch], tokens, arguments.rounds, began + arguments.limit)
        rows = [
            summary(engine, batch, tokens, own, turns[DENSE]) | {"load_average_before": round(load, 2)}
            for engine, own in turns.items()
        ]
        write(arguments, version, batch, rows)
    for engine in engines:
        engine.stop()


def folders(model: str) -> tuple[Path, Path]:
    """A model's folders, standard and published."""
    return sized_folders(model) if is_random(model) else (standard_folder(model), published_folder(model))


def take_turns(
    engines: list[Engine], prompts: list[list[int]], tokens: int, rounds: int, end: float
) -> dict[str, list[dict[str, Any]]]:
    """Turns of every engine at one batch size: a round to warm up, then ``rounds``, or fewer where time is over."""
    engines = [engine for engine in engines if engine.name != TORCH or len(prompts) <= _TORCH_BATCH]
    turns: dict[str, list[dict[str, Any]]] = {engine.name: [] for engine in engines}
    for number in range(1 + rounds):
        if number > 2 and time.monotonic() > end:
            break
        for engine in engines if number % 2 else engines[::-1]:
            turn = engine.turn(prompts, tokens if number else 2)
            if number:
                turns[engine.name].append(turn)
    return turns


def write(arguments: argparse.Namespace, version: str, batch: int, rows: list[dict[str, Any]]) -> None:
    """Put the rows of a batch size in the place of older ones."""
    report = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    report["machine"] = host_facts().as_dict() | ({"gpu": gpu_name()} if arguments.gpu else {})
    models = report.setdefault("models", {})
    greedy = arguments.sampling == {"temperature": 0}
    name = (
        arguments.model
        + (", random weights" if is_random(arguments.model) else "")
        + (", compiled" if arguments.compiled and not arguments.gpu else "")
        + ("" if greedy else ", sampled")
        + (", one thread" if arguments.cpu_time else "")
    )
    kept = [row for row in models.get(name, {}).get("rows", []) if row["batch"] != batch]
    models[name] = {
        "sampling": arguments.sampling,
        "clock": clock_name(arguments),
        "vllm": version,
        "prompt_tokens": _PROMPT,
        "new_tokens": _GPU_TOKENS if arguments.gpu else _TOKENS,
        "row_threshold": arguments.threshold,
        "rows": sorted(kept + rows, key=lambda row: row["batch"]),
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")


def gpu_name() -> str:
    """The GPU and its driver."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def clock_name(arguments: argparse.Namespace) -> str:
    """What seconds are."""
    if arguments.gpu:
        return "wall, one GPU"
    return "CPU time of one thread" if arguments.cpu_time else f"wall, {os.cpu_count()} threads"


def summary(
    name: str, batch: int, steps: int, turns: list[dict[str, Any]], dense: list[dict[str, Any]]
) -> dict[str, Any]:
    """Medians of an engine's turns at a batch size; ratios are those of turns of the same round."""

    def middle(key: str) -> float:
        return round(1e3 * float(statistics.median(turn[key] / steps for turn in turns)), 3)

    ratios = sorted(other["seconds"] / turn["seconds"] for turn, other in zip(turns, dense, strict=True))
    pairs = [
        first == second
        for text, other in zip(turns[0]["texts"], dense[0]["texts"], strict=True)
        for first, second in zip(text, other, strict=True)
    ]
    return {
        "head": name,
        "batch": batch,
        "rounds": len(turns),
        **{f"{part}_ms_p50": middle(key) for part, key in _PARTS.items() if key in turns[0]},
        "tokens_per_second_p50": round(batch * steps / statistics.median(turn["seconds"] for turn in turns), 2),
        "ratio_p50": round(statistics.median(ratios), 3),
        "ratio_min": round(ratios[0], 3),
        "ratio_max": round(ratios[-1], 3),
        "same_tokens": round(sum(pairs) / len(pairs), 4),
        "two_stage_rows": turns[-1]["two_stage_rows"],
        "dense_rows": turns[-1]["dense_rows"],
    }


def read_prompts(model: str, count: int) -> list[list[int]]:
    """Beginnings of paragraphs of the held-out texts, each of a fixed number of tokens; anything for random models."""
    if is_random(model):
        return [[100 * text + place for place in range(_PROMPT)] for text in range(1, 1 + count)]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(standard_folder(model) / "tokenizer.json"))
    prompts = []
    for file in sorted(TEXTS.glob("*.txt")):
        for paragraph in file.read_text(encoding="utf-8").split("\n\n"):
            ids = tokenizer.encode(paragraph).ids[:_PROMPT]
            if len(ids) == _PROMPT:
                prompts.append(ids)
    step = len(prompts) // count
    return prompts[: step * count : step]


if __name__ == "__main__":
    main()
