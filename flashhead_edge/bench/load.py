"""How busy other programs keep the processor while something is measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flashhead_edge.platforms.system_files import read_text

_STAT = "proc/stat"
#: Share of the cores in others' hands from which a measurement should not be relied on.
HEAVY_SHARE = 0.1


class LoadMeter:
    """Counts the processor time that is neither idle nor this process's, nor that of its ended children.

    Args:
        root: Root of the file system.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._stat = root / _STAT
        self.restart()

    def restart(self) -> None:
        """Begin to count anew."""
        self._began = (time.monotonic(), self._busy_seconds(), _own_seconds())

    def other_load(self) -> float:
        """Cores that others kept busy on average since the count began; 0.0 where the system does not say."""
        began, busy, own = self._began
        elapsed = time.monotonic() - began
        if elapsed <= 0:
            return 0.0
        return max(0.0, (self._busy_seconds() - busy - (_own_seconds() - own)) / elapsed)

    def _busy_seconds(self) -> float:
        """Processor time of all programs since the machine started."""
        # user, nice, system, idle, iowait, irq, softirq, steal: see proc_stat(5).
        first = read_text(self._stat).partition("\n")[0].split()[1:9]
        if len(first) < 8:
            return 0.0
        ticks = [int(value) for value in first]
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def is_heavy(other_load: float) -> bool:
    """Whether others used so much that a measurement should not be relied on.

    Args:
        other_load: Cores that others kept busy.
    """
    return other_load > HEAVY_SHARE * (os.cpu_count() or 1)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
