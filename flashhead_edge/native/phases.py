"""How long the phases of native heads take in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_int64
from typing import NamedTuple

from flashhead_edge import native


class PhaseTimes(NamedTuple):
    """Sums over calls of the operator ``TwoStageHead``.

    Attributes:
        calls: Calls timed.
        centroids: Seconds of stage 1.
        top_k: Seconds of the selection of clusters.
        gather_dot: Seconds of stage 2: the opened clusters' rows, and the greedy token.
    """

    calls: int
    centroids: float
    top_k: float
    gather_dot: float


@contextmanager
def timing() -> Iterator[None]:
    """Time the phases of all heads of the process in the block, from zero.

    Raises:
        RuntimeUnavailableError: The native library cannot be used.
    """
    library = native.library()
    library.flashhead_time_phases(1)
    try:
        yield
    finally:
        library.flashhead_time_phases(0)


def times() -> PhaseTimes:
    """What was timed since :func:`timing` began; it stays until it begins anew.

    Raises:
        RuntimeUnavailableError: The native library cannot be used.
    """
    library = native.library()
    nanoseconds = (c_int64 * 3)()
    library.flashhead_phase_times.restype = c_int64
    calls = library.flashhead_phase_times(nanoseconds)
    return PhaseTimes(int(calls), *(value / 1e9 for value in nanoseconds))
