"""Whether the threads that are timed had the cores to themselves, on a machine that others use too.

Linux counts how long each thread was ready to run and had to wait for a core (the second number of
/proc/PID/task/TID/schedstat, see proc_pid_schedstat(5)). While as many threads as there are cores run without waiting,
nothing else runs, so neither cores nor memory are shared.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")
#: Part of a time that may have been waited in what counts.
MOST_WAITED = 0.01


def go_first() -> None:
    """Ask to run before everyone else; where the system refuses, less is undisturbed, and it only takes longer."""
    with suppress(AttributeError, PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)


def thread_ids() -> set[str]:
    """Threads of this process."""
    return {path.name for path in _TASKS.iterdir()}


class Waiting:
    """How long threads waited for a core.

    Args:
        threads: Of this process; all of them if none are given.
    """

    def __init__(self, threads: Iterable[str] = ()) -> None:
        self._files = [_TASKS / name / "schedstat" for name in threads or thread_ids()]
        self._begin = self._total()

    def restart(self) -> None:
        """Begin to count anew."""
        self._begin = self._total()

    def disturbed(self, seconds: float) -> bool:
        """Whether more of the time since the beginning was waited than may be.

        Args:
            seconds: How long that was.
        """
        return (self._total() - self._begin) / 1e9 > MOST_WAITED * seconds

    def _total(self) -> int:
        """Nanoseconds; a thread that has ended since waits no longer."""
        total = 0
        for file in self._files:
            with suppress(FileNotFoundError, ProcessLookupError):
                total += int(file.read_bytes().split()[1])
        return total
