"""Progress on stderr: a bar for each stage, or a line where nobody watches."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar
    from typing_extensions import Self


class StageProgress:
    """A :class:`~flashhead_edge.progress.Progress` for people: bars with the time left, on a terminal.

    Elsewhere (a log, a pipe) a stage is one line that ends in the seconds it took. Use as a context manager, so that
    an error does not leave half a line.

    Args:
        file: Where to draw; stderr unless told.
        quiet: Draw nothing.
    """

    def __init__(self, file: TextIO | None = None, *, quiet: bool = False) -> None:
        self._file = sys.stderr if file is None else file
        self._quiet = quiet
        self._is_terminal = self._file.isatty()
        self._stage: str | None = None
        self._start = 0.0
        self._bar: ProgressBar[int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end("stopped" if kind else None)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Draw that ``done`` of ``total`` units of ``stage`` are finished."""
        if self._quiet:
            return
        if stage != self._stage:
            self._end(None)
            self._begin(stage, total)
        if self._bar is not None and done > self._bar.pos:
            self._bar.update(done - self._bar.pos)
        if done >= total:
            self._end(None)

    def _begin(self, stage: str, total: int) -> None:
        """Start the bar or the line of a stage."""
        self._stage, self._start = stage, time.perf_counter()
        if self._is_terminal:
            self._bar = click.progressbar(length=max(total, 1), label=f"{stage:<24}", file=self._file)
            self._bar.__enter__()
        else:
            click.echo(f"{stage} ... ", file=self._file, nl=False)

    def _end(self, remark: str | None) -> None:
        """Finish the bar or the line of the current stage, if there is one."""
        if self._stage is None:
            return
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
        else:
            click.echo(remark or f"{time.perf_counter() - self._start:.1f} s", file=self._file)
        self._stage = None
