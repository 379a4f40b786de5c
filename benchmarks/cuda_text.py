"""Whole texts on an NVIDIA GPU by ONNX Runtime: ``python -m benchmarks.cuda_text MODEL=BUNDLE ...``.

Heads on the GPU and on the processor of the same machine take turns; every one of them is also asked for all tokens of
texts that the dense float32 head wrote on the processor. Needs ``onnxruntime-gpu`` and CUDA. The result is
``results/cuda-text.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.models import RESULTS
from benchmarks.vllm_speed import gpu_name
from flashhead_edge import Bundle, Generator, native
from flashhead_edge.bench.turns import PROMPTS
from flashhead_edge.files import write_text
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.runtimes.session import CPU_PROVIDER

CUDA = ("CUDAExecutionProvider", CPU_PROVIDER)
NEW_TOKENS, WARM_UP = 128, 16


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", metavar="MODEL=BUNDLE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(8, os.cpu_count() or 1), help="of the processor")
    parser.add_argument("--output", type=Path, default=RESULTS / "cuda-text.json")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for model, path in (text.split("=", 1) for text in arguments.bundles):
        rows += [{"model": model, **row} for row in compare(Bundle.open(path), arguments.rounds, arguments.threads)]
    facts = {
        "gpu": gpu_name(),
        "onnxruntime": onnxruntime.__version__,
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "native_library": native.is_available(),
        "new_tokens": NEW_TOKENS,
        "machine": host_facts().as_dict(),
    }
    write_text(arguments.output, json.dumps({**facts, "rows": rows}, indent=2) + "\n")
    for row in rows:
        print(row)


def compare(bundle: Bundle, rounds: int, threads: int) -> list[dict[str, object]]:
    """A row for each head and device."""
    places = {"processor": (CPU_PROVIDER,), "GPU": CUDA}
    generators = {
        (head, place): Generator(bundle, head=head, providers=providers, threads=threads)
        for head in ("two-stage", "dense")
        for place, providers in places.items()
    }
    reference = generators["dense", "processor"]
    prompts = [reference.tokenizer.encode(prompt) for prompt in PROMPTS]
    texts = [write(reference, prompt, NEW_TOKENS)[0] for prompt in prompts]
    times: dict[tuple[str, str], list[float]] = {key: [] for key in generators}
    for number in range(rounds):
        for key, generator in generators.items():
            times[key].append(write(generator, prompts[number % len(prompts)], NEW_TOKENS)[1])
    return [
        {
            "head": head,
            "place": place,
            "tokens_per_second_p50": statistics.median(times[head, place]),
            "tokens_per_second_min": min(times[head, place]),
            "tokens_per_second_max": max(times[head, place]),
            "agreement": agreement(generator, prompts, texts),
        }
        for (head, place), generator in generators.items()
    ]


def write(generator: Generator, prompt: Sequence[int], count: int) -> tuple[list[int], float]:
    """Tokens that follow a prompt, ends of text among them; tokens per second after the first few."""
    decoder = generator.decoder
    decoder.reset(positions=len(prompt) + count)
    ids = [int(decoder.step(np.array([prompt]), greedy=True).head.token_ids[0])]
    start = time.perf_counter()
    for number in range(1, count):
        if number == WARM_UP:
            start = time.perf_counter()
        ids.append(int(decoder.step(np.array([ids[-1:]]), greedy=True).head.token_ids[0]))
    return ids, (count - WARM_UP) / (time.perf_counter() - start)


def agreement(generator: Generator, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> float:
    """Share of tokens of texts that a head would choose too, fed what came before, token by token."""
    same = []
    for prompt, text in zip(prompts, texts, strict=True):
        decoder = generator.decoder
        decoder.reset(positions=len(prompt) + len(text))
        for fed, wanted in zip([prompt, *([token] for token in text[:-1])], text, strict=True):
            same.append(int(decoder.step(np.array([fed]), greedy=True).head.token_ids[0]) == wanted)
    return sum(same) / len(same)


if __name__ == "__main__":
    main()
