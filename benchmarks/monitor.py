"""What the recall monitor costs: how much longer the steps take at which it checks, and those after them.

Steps of greedy texts are timed one by one, with a check every 8th step so that there are many. What a check costs is
the median of what its step and the next (whose caches it has filled with rows) take beyond twice the median step; at N
steps from check to check it is N times rarer. Writes ``results/monitor.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.demo import PROMPTS
from benchmarks.models import MODELS, RESULTS, bundle_of
from flashhead_edge import Generator
from flashhead_edge.bench.load import LoadMeter
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.monitor import MonitorOptions, RecallMonitor
from flashhead_edge.platforms.host import host_facts

MEASURED_EVERY, EVERY = 8, 64
NEW_TOKENS = 256
RESAMPLINGS = 10_000


class TimedDecoder:
    """A decoder that notes when each step begins, and how many checks came before it.

    Args:
        decoder: The decoder.
        monitor: Counts the checks.
    """

    def __init__(self, decoder: Any, monitor: RecallMonitor) -> None:
        self._decoder, self._monitor = decoder, monitor
        self.notes: list[tuple[float, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def step(self, *arguments: Any, **options: Any) -> Any:
        """As the decoder's."""
        self.notes.append((time.perf_counter(), self._monitor.recall.checks))
        return self._decoder.step(*arguments, **options)


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--texts", type=int, default=12)
    arguments = parser.parse_args()
    report = {
        "machine": host_facts().as_dict(),
        "every": EVERY,
        "models": [measure(name, arguments.texts) for name in arguments.models],
    }
    (RESULTS / "monitor.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report["models"], indent=1))


def measure(name: str, texts: int) -> dict[str, object]:
    """All figures of one model."""
    bundle = bundle_of(name, ExportOptions(body_precision="int4", max_positions=4096), label="int4-bundle")
    generator = Generator(bundle, runtime="onnxruntime", monitor=MonitorOptions(every=MEASURED_EVERY))
    generator.generate(PROMPTS[0], max_new_tokens=NEW_TOKENS)
    assert generator.monitor is not None
    load = LoadMeter()
    plain: list[float] = []
    checked: list[float] = []
    for number in range(texts):
        timed = TimedDecoder(generator.decoder, generator.monitor)
        generator.decoder = timed  # type: ignore[assignment]
        generator.generate(PROMPTS[number % len(PROMPTS)], max_new_tokens=NEW_TOKENS)
        generator.decoder = timed._decoder
        some_plain, some_checked = split(timed.notes[1:])  # the first step reads the prompt
        plain += some_plain
        checked += some_checked
    other_load = load.other_load()
    step = float(np.median(plain))
    costs = np.array(checked) - 2 * step
    medians = np.median(np.random.default_rng(0).choice(costs, (RESAMPLINGS, len(costs))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return {
        "model": name,
        "step_ms_p50": step * 1e3,
        "check_ms_p50": float(np.median(costs)) * 1e3,
        "checks": len(checked),
        "overhead_p50": float(np.median(costs)) / (EVERY * step),
        "overhead_p50_95_percent": [float(low) / (EVERY * step), float(high) / (EVERY * step)],
        "other_load_cores": other_load,
    }


def split(notes: list[tuple[float, int]]) -> tuple[list[float], list[float]]:
    """Seconds of the steps that have no check before, in or after them; and of each with a check and the next together.

    Args:
        notes: When each step began, and the checks until then.
    """
    times = [after[0] - before[0] for before, after in pairwise(notes)]
    checks = [after[1] > before[1] for before, after in pairwise(notes)]
    plain = [times[i] for i in range(1, len(times) - 1) if not any(checks[i - 1 : i + 2])]
    return plain, [times[i] + times[i + 1] for i in range(len(times) - 1) if checks[i]]


if __name__ == "__main__":
    sys.exit(main())
