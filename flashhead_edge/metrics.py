"""What a generator has done so far, counted at a fraction of a microsecond a step."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from flashhead_edge.tracing import Tracer

#: Upper edges of the histogram of steps, seconds.
BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
#: Steps that quantiles are of.
_RECENT = 1024
_PREFIX = "flashhead_edge"


@dataclass(frozen=True)
class Metrics:
    """Counts since the generator was made, of all its texts; beam searches are not counted.

    Attributes:
        generations: Texts begun.
        prompt_tokens: Tokens of their prompts.
        tokens: Tokens chosen.
        prompt_seconds: Reading prompts.
        steps: Steps of the model after prompts; each may be of several texts, or check several drafts.
        step_seconds: All of them together.
        step_ms_p50: Median of the last 1,024, milliseconds; None before the first.
        step_ms_p90: Their 90th percentile.
        step_ms_p99: Their 99th percentile.
        step_buckets: Steps by their time: how many are up to each of :data:`BUCKETS` and above the one before, then
            those beyond the last.
        head_share: Share of a step that the head takes, from the newest profile in the bundle that was measured on a
            processor of this name; None without one.
        recall: What the recall monitor has found, where it watches; see :class:`flashhead_edge.monitor.Recall`.
    """

    generations: int
    prompt_tokens: int
    tokens: int
    prompt_seconds: float
    steps: int
    step_seconds: float
    step_ms_p50: float | None
    step_ms_p90: float | None
    step_ms_p99: float | None
    step_buckets: tuple[int, ...]
    head_share: float | None = None
    recall: dict[str, float | int | None] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    def prometheus(self) -> str:
        """The text that Prometheus scrapes.

        Format: https://prometheus.io/docs/instrumenting/exposition_formats/
        """
        lines = []
        for name, value in (
            ("generations", self.generations),
            ("prompt_tokens", self.prompt_tokens),
            ("tokens", self.tokens),
            ("prompt_seconds", self.prompt_seconds),
        ):
            lines += [f"# TYPE {_PREFIX}_{name}_total counter", f"{_PREFIX}_{name}_total {value}"]
        lines.append(f"# TYPE {_PREFIX}_step_seconds histogram")
        total = 0
        for edge, count in zip((*BUCKETS, "+Inf"), self.step_buckets, strict=True):
            total += count
            lines.append(f'{_PREFIX}_step_seconds_bucket{{le="{edge}"}} {total}')
        lines += [f"{_PREFIX}_step_seconds_sum {self.step_seconds}", f"{_PREFIX}_step_seconds_count {self.steps}"]
        agreement = self.recall["agreement"] if self.recall is not None else None
        for name, gauge in (("head_share", self.head_share), ("agreement", agreement)):
            if gauge is not None:
                lines += [f"# TYPE {_PREFIX}_{name} gauge", f"{_PREFIX}_{name} {gauge}"]
        return "\n".join(lines) + "\n"


class Recorder:
    """Counts what a generator does, and tells the tracer if there is one.

    Args:
        tracer: Keeps spans, or None.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self.tracer = tracer
        self.tokens = 0
        self._generations = self._prompt_tokens = self._steps = 0
        self._prompt_seconds = self._step_seconds = 0.0
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def began(self, prompt_tokens: int) -> None:
        """Count a text.

        Args:
            prompt_tokens: Tokens of its prompt.
        """
        self._generations += 1
        self._prompt_tokens += prompt_tokens

    def ran(self, start: float, *, fed: int, is_prompt: bool) -> None:
        """Count a run of the model that has just ended.

        Args:
            start: ``time.perf_counter()`` at its beginning.
            fed: Tokens that it was fed.
            is_prompt: Whether it read a prompt.
        """
        end = time.perf_counter()
        seconds = end - start
        if is_prompt:
            self._prompt_seconds += seconds
        else:
            self._steps += 1
            self._step_seconds += seconds
            self._buckets[bisect_left(BUCKETS, seconds)] += 1
            self._recent.append(seconds)
        if self.tracer is not None:
            self.tracer.add("read prompt" if is_prompt else "decode step", start, end, tokens=fed)

    def snapshot(
        self, *, head_share: float | None = None, recall: dict[str, float | int | None] | None = None
    ) -> Metrics:
        """The counts now.

        Args:
            head_share: See :class:`Metrics`.
            recall: See :class:`Metrics`.
        """
        recent = sorted(self._recent)
        median, high, highest = (_quantile(recent, part) for part in (0.5, 0.9, 0.99))
        return Metrics(
            generations=self._generations,
            prompt_tokens=self._prompt_tokens,
            tokens=self.tokens,
            prompt_seconds=self._prompt_seconds,
            steps=self._steps,
            step_seconds=self._step_seconds,
            step_ms_p50=median,
            step_ms_p90=high,
            step_ms_p99=highest,
            step_buckets=tuple(self._buckets),
            head_share=head_share,
            recall=recall,
        )


def _quantile(ascending: list[float], part: float) -> float | None:
    """The nearest of the sorted times, in milliseconds."""
    return 1e3 * ascending[round(part * (len(ascending) - 1))] if ascending else None
