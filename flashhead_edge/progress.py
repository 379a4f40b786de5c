"""How long-running work reports its progress without knowing who is watching."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the stage's name and how much of it is done.

    A stage starts with its first call and ends when ``done == total``; stages do not overlap.
    """

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` units of ``stage`` are finished."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Ignore progress: the default where nobody watches."""
