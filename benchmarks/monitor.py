"""What the recall monitor costs: the same greedy texts with and without it, in turn, many times over.

A text with the monitor and one without stand side by side in time, and which comes first alternates, so that a change
in the machine's speed meets both. The median of the pairs' ratios has a 95 % interval, from resampling the pairs.
Writes ``results/monitor.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys

import numpy as np

from benchmarks.demo import PROMPTS
from benchmarks.models import MODELS, RESULTS, bundle_of
from flashhead_edge import Generator
from flashhead_edge.bench.load import LoadMeter
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.monitor import MonitorOptions, RecallMonitor
from flashhead_edge.platforms.host import host_facts

EVERY = 64
NEW_TOKENS = 256
RESAMPLINGS = 10_000


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    report = {
        "machine": host_facts().as_dict(),
        "every": EVERY,
        "new_tokens": NEW_TOKENS,
        "models": [measure(name, arguments.rounds) for name in arguments.models],
    }
    (RESULTS / "monitor.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report["models"], indent=1))


def measure(name: str, rounds: int) -> dict[str, object]:
    """All figures of one model."""
    bundle = bundle_of(name, ExportOptions(body_precision="int4", max_positions=4096), label="int4-bundle")
    generator = Generator(bundle, runtime="onnxruntime")
    monitor = RecallMonitor(MonitorOptions(every=EVERY))
    generate(generator, PROMPTS[0], None)
    generate(generator, PROMPTS[0], monitor)
    ratios = []
    load = LoadMeter()
    for number in range(rounds * len(PROMPTS)):
        prompt = PROMPTS[number % len(PROMPTS)]
        order = (None, monitor) if number % 2 else (monitor, None)
        seconds = {used: generate(generator, prompt, used) for used in order}
        ratios.append(seconds[monitor] / seconds[None])
    other_load = load.other_load()
    low, high = interval(ratios)
    return {
        "model": name,
        "pairs": len(ratios),
        "overhead_p50": statistics.median(ratios) - 1,
        "overhead_p50_95_percent": [low - 1, high - 1],
        "checks": monitor.recall.checks,
        "other_load_cores": other_load,
    }


def generate(generator: Generator, prompt: str, monitor: RecallMonitor | None) -> float:
    """Seconds a token of a text's steps."""
    generator.monitor = monitor
    result = generator.generate(prompt, max_new_tokens=NEW_TOKENS)
    assert result.tokens_per_second is not None
    return 1 / result.tokens_per_second


def interval(ratios: list[float]) -> tuple[float, float]:
    """95 % interval of the median, from resampling."""
    random = np.random.default_rng(0)
    medians = np.median(random.choice(ratios, (RESAMPLINGS, len(ratios))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(main())
