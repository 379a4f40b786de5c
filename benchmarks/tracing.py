"""What counting and tracing cost a step: ``python -m benchmarks.tracing`` writes ``results/tracing.json``.

A step takes one count (:meth:`Recorder.ran`) and three blocks that may be spans: choice, monitor, detokenization.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from flashhead_edge.files import write_text
from flashhead_edge.metrics import Recorder
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.tracing import Tracer, span

RESULT = Path(__file__).resolve().parent / "results" / "tracing.json"
CALLS, ROUNDS = 20_000, 15


def main() -> None:
    """Measure and write."""
    recorder, tracer = Recorder(), Tracer()

    def count() -> None:
        recorder.ran(time.perf_counter(), fed=1, is_prompt=False)

    def block(kept: Tracer | None) -> None:
        with span(kept, "block"):
            pass

    figures = {
        "count_us": microseconds(count),
        "span_off_us": microseconds(lambda: block(None)),
        "span_on_us": microseconds(lambda: block(tracer)),
    }
    figures["step_off_us"] = figures["count_us"] + 3 * figures["span_off_us"]
    figures["step_on_us"] = figures["count_us"] + 4 * figures["span_on_us"]
    write_text(RESULT, json.dumps({**figures, "machine": host_facts().as_dict()}, indent=2) + "\n")
    print(figures)


def microseconds(work: Callable[[], None]) -> float:
    """Of a call, the fastest round."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(CALLS):
            work()
        best = min(best, time.perf_counter() - start)
    return 1e6 * best / CALLS


if __name__ == "__main__":
    main()
