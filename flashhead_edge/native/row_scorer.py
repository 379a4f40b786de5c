"""Products of single rows, by the native library."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge import native
from flashhead_edge.errors import OptionError

_Float32 = npt.NDArray[np.float32]
_NO_SUCH_ROW = 2


class RowScorer:
    """Scores rows of a table in the precision they are stored in, summed in float32.

    It is called between two steps of a model, when whatever Python does comes from memory rather than from a cache: so
    it does as little as it can.

    Args:
        rows: [N, H] float16 or float32, contiguous; memory-mapped or not.

    Raises:
        OptionError: The shape or type cannot be read.
        RuntimeUnavailableError: The native library cannot be used.
    """

    def __init__(self, rows: npt.NDArray[np.generic]) -> None:
        if rows.ndim != 2 or rows.dtype not in (np.float16, np.float32) or not rows.flags.c_contiguous:
            raise OptionError("The rows cannot be scored.", found=f"{rows.dtype} of shape {list(rows.shape)}")
        self._function = _declare(native.library())
        self._rows = rows  # whose memory is read
        self._table = (_address(rows), rows.dtype.itemsize * 8, *rows.shape)

    def __call__(self, numbers: npt.NDArray[np.integer], states: _Float32) -> _Float32:
        """Score.

        Args:
            numbers: Rows to score for each state, [B, n]; -1 for none.
            states: [B, H] float32.

        Returns:
            [B, n] float32, minus infinity where there is no row. With u = 2^-24, a product is within
            (H + 1) * u * sum |row| |state| of the exact one.

        Raises:
            OptionError: Shapes do not fit, or a number is not that of a row.
        """
        batch, count = numbers.shape
        if states.shape != (batch, self._table[3]):
            raise OptionError(
                "The states do not fit the rows.",
                found=f"states {list(states.shape)} and numbers {list(numbers.shape)}",
                expected=f"[B, {self._table[3]}] and [B, n]",
            )
        out = np.empty((batch, count), np.float32)
        numbers, states = np.ascontiguousarray(numbers, np.int64), np.ascontiguousarray(states, np.float32)
        status = self._function(*self._table, _address(numbers), count, _address(states), batch, _address(out))
        if status == _NO_SUCH_ROW:
            raise OptionError(
                "The numbers of rows are out of range.", found=numbers.max(), expected=f"below {len(self._rows)}"
            )
        if status:
            raise MemoryError
        return out


@lru_cache(maxsize=1)
def _declare(library: ctypes.CDLL) -> Any:
    """The C function in native/capi.cpp, its types stated once."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    function = library.flashhead_score_rows
    function.argtypes = [pointer, ctypes.c_int, integer, integer, pointer, integer, pointer, integer, pointer]
    return function


def _address(array: npt.NDArray[Any]) -> int:
    """What ``array.ctypes.data`` is, in a fraction of the time."""
    address: int = array.__array_interface__["data"][0]
    return address
