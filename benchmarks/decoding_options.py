"""What decoding options cost: tokens a second of each against plain greedy decoding, in turn, on the same prompts.

Greedy texts have the same length under every option; drawn ones are generated to the limit. ``exact`` is measured with
and without low-bit rows, and beside it the dense float32 head. Writes ``results/decoding-options.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time

from benchmarks.demo import PROMPTS
from benchmarks.models import MODELS, RESULTS, bundle_of
from flashhead_edge import Generator, native
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.monitor import MonitorOptions
from flashhead_edge.platforms.host import host_facts

NEW_TOKENS = 96
#: Name of a generator, and its options.
VARIANTS = {
    "greedy": ("two-stage", {}),
    "greedy, no context candidates": ("two-stage", {"context_candidates": 0}),
    "recall monitor, every 64th step": ("monitored", {}),
    "temperature 1": ("two-stage", {"temperature": 1.0, "seed": 0}),
    "temperature 1, top-p 0.9": ("two-stage", {"temperature": 1.0, "top_p": 0.9, "seed": 0}),
    "log-probabilities": ("two-stage", {"logprobs": True, "top_logprobs": 5}),
    "repetition penalty": ("two-stage", {"repetition_penalty": 1.1}),
    "drafts from the text, 4": ("two-stage", {"num_drafts": 4}),
    "exact": ("exact", {}),
    "exact, int8 low-bit rows": ("exact, low-bit", {}),
    "dense fp32": ("dense", {}),
}
ROWS = (1, 2, 4, 8)


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    report = {
        "machine": host_facts().as_dict(),
        "native": native.is_available(),
        "load_average_before": load,
        "new_tokens": NEW_TOKENS,
        "prompts": len(PROMPTS),
        "models": [measure(name, arguments.rounds) for name in arguments.models],
    }
    (RESULTS / "decoding-options.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for model in report["models"]:
        print(model["model"])
        for row in [*model["options"], *model["batches"]]:
            print("  ", json.dumps(row))


def measure(name: str, rounds: int) -> dict[str, object]:
    """All figures of one model."""
    options = ExportOptions(body_precision="int4", max_positions=4096)
    bundle = bundle_of(name, options, label="int4-bundle")
    low_bit = bundle_of(
        name, ExportOptions(body_precision="int4", max_positions=4096, low_bit_rows="int8"), label="low-bit-bundle"
    )
    generators = {
        "two-stage": Generator(bundle),
        "monitored": Generator(bundle, monitor=MonitorOptions(every=64)),
        "dense": Generator(bundle, head="dense"),
        "exact": Generator(bundle, head="exact"),
        "exact, low-bit": Generator(low_bit, head="exact"),
    }
    rates: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    tokens: dict[str, list[tuple[int, ...]]] = {variant: [] for variant in VARIANTS}
    for turn in range(rounds + 1):
        for prompt in PROMPTS:
            for variant, (generator, keywords) in VARIANTS.items():
                result = generators[generator].generate(prompt, max_new_tokens=NEW_TOKENS, **keywords)
                if turn and result.tokens_per_second:  # the first round allocates
                    rates[variant].append(result.tokens_per_second)
                if turn == 1:
                    tokens[variant].append(result.token_ids)
    plain = rates["greedy"]
    exact = generators["exact, low-bit"].exact
    return {
        "model": name,
        "options": [
            {
                "option": variant,
                "tokens_per_second_p50": statistics.median(values),
                "ratio_to_greedy": statistics.median(a / b for a, b in zip(values, plain, strict=True)),
                "texts_as_dense": sum(a == b for a, b in zip(tokens[variant], tokens["dense fp32"], strict=True)),
            }
            for variant, values in rates.items()
        ],
        "exact_steps_proven_by_the_scan": exact.proven / (exact.proven + exact.scored),
        "batches": batches(generators["two-stage"], rounds),
    }


def batches(generator: Generator, rounds: int) -> list[dict[str, object]]:
    """Tokens a second of all texts together, by how many stand side by side."""
    prompts = [prompt for _ in range(max(ROWS)) for prompt in PROMPTS][: max(ROWS)]
    rates: dict[int, list[float]] = {rows: [] for rows in ROWS}
    for _ in range(rounds):
        for rows in ROWS:
            start = time.perf_counter()
            texts = generator.generate_batch(prompts, rows=rows, max_new_tokens=NEW_TOKENS)
            seconds = time.perf_counter() - start
            rates[rows].append(sum(len(text.token_ids) for text in texts) / seconds)
    one = statistics.median(rates[1])
    return [
        {"rows": rows, "tokens_per_second": statistics.median(values), "ratio_to_one": statistics.median(values) / one}
        for rows, values in rates.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
