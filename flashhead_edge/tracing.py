"""A trace of what a generator does, for Perfetto (ui.perfetto.dev) and Chrome (chrome://tracing).

Spans are complete events of the trace event format, which lie within each other by their times:
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from flashhead_edge.files import write_text

_NOTHING = nullcontext()


class Tracer:
    """Keeps spans; a few microseconds and some hundred bytes each."""

    def __init__(self) -> None:
        self._origin = time.perf_counter()
        self._events: list[dict[str, Any]] = []
        self._process = os.getpid()

    @contextmanager
    def span(self, name: str, **arguments: Any) -> Iterator[None]:
        """Keep the time of a block.

        Args:
            name: What it does.
            arguments: What a viewer shows beside it.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, start, time.perf_counter(), **arguments)

    def add(self, name: str, start: float, end: float, **arguments: Any) -> None:
        """Keep a span that was timed elsewhere.

        Args:
            name: What was done.
            start: ``time.perf_counter()`` at its beginning.
            end: At its end.
            arguments: What a viewer shows beside it.
        """
        self._events.append(
            {
                "name": name,
                "ph": "X",
                "ts": max(0.0, (start - self._origin) * 1e6),
                "dur": (end - start) * 1e6,
                "pid": self._process,
                "tid": threading.get_native_id(),
                "args": arguments,
            }
        )

    def as_dict(self) -> dict[str, Any]:
        """The trace as JSON takes it, in the order in which spans begin; times are in microseconds."""
        name = {"name": "process_name", "ph": "M", "pid": self._process, "args": {"name": "flashhead-edge"}}
        events = sorted(self._events, key=lambda event: (event["ts"], -event["dur"]))
        return {"traceEvents": [name, *events], "displayTimeUnit": "ms"}

    def write(self, path: Path) -> None:
        """Write the trace.

        Args:
            path: The file.

        Raises:
            ExportError: The disk is full or not writable.
        """
        write_text(path, json.dumps(self.as_dict()))


def span(tracer: Tracer | None, name: str, **arguments: Any) -> AbstractContextManager[None]:
    """A span of a tracer, or nothing without one.

    Args:
        tracer: Where it is kept.
        name: What the block does.
        arguments: What a viewer shows beside it.
    """
    return _NOTHING if tracer is None else tracer.span(name, **arguments)
