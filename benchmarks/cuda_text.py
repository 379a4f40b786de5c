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
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.models import RESULTS
from benchmarks.vllm_speed import gpu_name
from flashhead_edge import Bundle, Generator, native
from flashhead_edge.bench.options import DEVICES, Test
from flashhead_edge.bench.turns import PROMPTS, agreement_with, greedy_text, take_turn
from flashhead_edge.files import write_text
from flashhead_edge.platforms.host import host_facts

PLACES = {"processor": "cpu", "GPU": "cuda"}
NEW_TOKENS, TEXT_TOKENS = 128, 128


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
    generators = {
        (head, place): Generator(bundle, head=head, providers=DEVICES[device], threads=threads)
        for head in ("two-stage", "dense")
        for place, device in PLACES.items()
    }
    decoders = {key: generator.decoder for key, generator in generators.items()}
    prompts = [np.array([generators["dense", "processor"].tokenizer.encode(text)], np.int64) for text in PROMPTS]
    texts = [greedy_text(decoders["dense", "processor"], prompt, TEXT_TOKENS) for prompt in prompts]
    ids = [int(token) for prompt in prompts for token in prompt[0]]
    speeds: dict[tuple[str, str], list[float]] = {key: [] for key in decoders}
    for _ in range(rounds):
        for key, decoder in decoders.items():
            speeds[key].append(take_turn(decoder, Test("tg", NEW_TOKENS), ids).tokens_per_second)
    return [
        {
            "head": head,
            "place": place,
            "tokens_per_second_p50": statistics.median(speeds[head, place]),
            "tokens_per_second_min": min(speeds[head, place]),
            "tokens_per_second_max": max(speeds[head, place]),
            "agreement": agreement_with(decoder, prompts, texts),
        }
        for (head, place), decoder in decoders.items()
    ]


if __name__ == "__main__":
    main()
