"""Decoding speed of vLLM on the CPU with the dense and the two-stage head, measured in turns.

Every engine is a process of its own, and only one of them works at a time: at each batch size they generate in turn, so
that what else the machine does meets them alike. A turn is greedy decoding of as many texts as the batch has, of a
fixed length; the time until the first tokens is measured and taken off.

Run with the Python of an environment that has vLLM (docs/vllm.md, Speed)::

    .venv-vllm/bin/python -m benchmarks.vllm_speed [--model gemma3-270m] [--rounds 5]
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
from benchmarks.vllm_models import published_folder, standard_folder
from flashhead_edge.platforms.host import host_facts

DENSE, NATIVE, TORCH = "dense", "two-stage, native library", "two-stage, torch only"
ENGINES = (DENSE, NATIVE, TORCH)
BATCHES = (1, 2, 4, 8, 16, 32)
TEXTS = Path(__file__).with_name("texts")
FILE = RESULTS / "vllm-speed.json"
#: Tokens of a prompt; of a text.
_PROMPT, _TOKENS = 32, 24
#: Greatest batch of the torch path, which is far beyond what it is used for.
_TORCH_BATCH = 4
#: What every engine runs under: no network, in one process, and cache enough for the largest batch.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
}


class Engine:
    """A worker process.

    Args:
        name: One of the engines' names.
        model: Name of the model.
        sampling: Settings of every request, for ``SamplingParams``.
        threshold: Whether the row threshold holds; without it all steps take the two-stage head.
    """

    def __init__(self, name: str, model: str, sampling: dict[str, Any], *, threshold: bool) -> None:
        folder = standard_folder(model) if name == DENSE else published_folder(model)
        options: dict[str, Any] = {"enforce_eager": True, "max_model_len": 512, "dtype": "bfloat16", "seed": 0}
        if name != DENSE and not threshold:
            options["hf_overrides"] = {"flash_head_max_rows": 1 << 20}
        job = {"model": str(folder), "options": options, "sampling": sampling}
        environment = {**os.environ, **_ENVIRONMENT, "FLASHHEAD_EDGE_NATIVE": "0" if name == TORCH else "1"}
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
    parser.add_argument("--model", default="gemma3-270m", choices=MODELS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--limit", type=float, default=300, help="seconds after which no further round begins")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--sampling", type=json.loads, default={"temperature": 0}, help="SamplingParams, as JSON")
    parser.add_argument("--threshold", action="store_true", help="let the row threshold hold")
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    began, load = time.monotonic(), os.getloadavg()[0]
    engines = [
        Engine(name, arguments.model, arguments.sampling, threshold=arguments.threshold) for name in arguments.engines
    ]
    (version,) = {engine.wait()["vllm"] for engine in engines}
    prompts = read_prompts(standard_folder(arguments.model), max(arguments.batches))
    turns: dict[tuple[str, int], list[dict[str, Any]]] = {}
    rounds = 0
    for number in range(1 + arguments.rounds):
        if number > 1 and time.monotonic() - began > arguments.limit:
            break
        rounds = number
        for batch in arguments.batches:
            order = engines if number % 2 else engines[::-1]
            for engine in order:
                if engine.name == TORCH and batch > _TORCH_BATCH:
                    continue
                turn = engine.turn(prompts[:batch], _TOKENS)
                if number:  # the first round warms up
                    turns.setdefault((engine.name, batch), []).append(turn)
    for engine in engines:
        engine.stop()
    report = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    report["machine"] = host_facts().as_dict()
    greedy = arguments.sampling == {"temperature": 0}
    models = report.setdefault("models", {})
    name = arguments.model + ("" if greedy else ", sampled")
    rows = [
        summary(engine, batch, turns[engine, batch], turns[DENSE, batch])
        | {"rounds": rounds, "load_average_before": round(load, 2)}
        for engine, batch in sorted(turns, key=lambda place: (place[1], ENGINES.index(place[0])))
    ]
    kept = [row for row in models.get(name, {}).get("rows", []) if row["batch"] not in arguments.batches]
    models[name] = {
        "sampling": arguments.sampling,
        "vllm": version,
        "prompt_tokens": _PROMPT,
        "new_tokens": _TOKENS,
        "row_threshold": arguments.threshold,
        "rows": sorted(kept + rows, key=lambda row: row["batch"]),
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")


def summary(name: str, batch: int, turns: list[dict[str, Any]], dense: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of an engine's turns at a batch size; ratios are those of turns of the same round."""
    steps = _TOKENS

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
        "step_ms_p50": middle("seconds"),
        "head_ms_p50": middle("head_seconds"),
        "sampler_ms_p50": middle("sampler_seconds"),
        "tokens_per_second_p50": round(batch * steps / statistics.median(turn["seconds"] for turn in turns), 2),
        "ratio_p50": round(statistics.median(ratios), 3),
        "ratio_min": round(ratios[0], 3),
        "ratio_max": round(ratios[-1], 3),
        "same_tokens": round(sum(pairs) / len(pairs), 4),
        "two_stage_rows": turns[-1]["two_stage_rows"],
    }


def read_prompts(folder: Path, count: int) -> list[list[int]]:
    """Beginnings of paragraphs of the held-out texts, each of a fixed number of tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
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
