"""What this machine's memory and cores reach in a short test, where no catalogue knows their peak."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

#: Larger than most processors' last cache, so that memory must answer.
_STREAM_BYTES = 256 << 20
_EDGE = 768
_REPEATS = 7


@dataclass(frozen=True)
class Peak:
    """What was reached, the best of several times.

    Attributes:
        value: In 10^9 a second.
        source: How, for people.
    """

    value: float
    source: str


def stream_bandwidth(threads: int, *, stream_bytes: int = _STREAM_BYTES) -> Peak:
    """Read an array from memory: each thread takes the greatest number of its part.

    Args:
        threads: Threads that read, as many as the operators have.
        stream_bytes: Size of the array.

    Returns:
        10^9 bytes a second.
    """
    array = np.ones(stream_bytes // 4, np.float32)
    parts = np.array_split(array, threads)
    with ThreadPoolExecutor(threads) as pool:
        seconds = _best(lambda: list(pool.map(np.max, parts)))
    return Peak(array.nbytes / seconds / 1e9, f"stream test, {stream_bytes >> 20} MiB, threads: {threads}")


def matrix_operations() -> Peak:
    """Multiply float32 matrices with numpy, on the threads that its BLAS chooses.

    Returns:
        10^9 multiplications and additions a second.
    """
    left = np.ones((_EDGE, _EDGE), np.float32)
    seconds = _best(lambda: left @ left)
    return Peak(2 * _EDGE**3 / seconds / 1e9, f"float32 matrix product of numpy, {_EDGE} x {_EDGE}")


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
