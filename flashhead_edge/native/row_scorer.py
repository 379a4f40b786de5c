"""Products of single rows, and the greedy choice among them, by the native library."""

from __future__ import annotations

import ctypes
import weakref
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge import native
from flashhead_edge.errors import BundleError, OptionError
from flashhead_edge.row_table import RowTable

_Float32 = npt.NDArray[np.float32]
_Int64 = npt.NDArray[np.int64]
_NO_MEMORY, _NO_SUCH_ROW, _NOT_FINITE, _NOT_READ = 1, 2, 3, 4
_TYPES = {"float32": 0, "float16": 1, "uint8": 3}


class _Rows(ctypes.Structure):
    """``FlashheadRows`` of native/capi_rows.cpp."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("low", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("type", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("cluster_size", ctypes.c_int64),
        ("bias", ctypes.c_void_p),
        ("slot_of_token", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("softcap", ctypes.c_float),
        ("single", ctypes.c_void_p),
    )


class RowScorer:
    """Scores rows of a table in the precision they are stored in, summed in float32.

    It is called between two steps of a model, when whatever Python does comes from memory rather than from a cache: so
    it does as little as it can.

    A few rows are read from the file that the table is mapped from, if it is, and kept: through the mapping, each of
    them would make 64 KiB around it resident, beside what the session has mapped itself.

    Args:
        table: The rows.
        slot_of_token: Row of every token, [V] int32; only :meth:`best_token` needs it.
        bias: Of every row, [T, C] float32, or None.
        logit_scale: Factor on the logits.
        logit_softcap: Soft-cap of the logits, or None.

    Raises:
        OptionError: The table is not contiguous.
        RuntimeUnavailableError: The native library cannot be used.
    """

    def __init__(
        self,
        table: RowTable,
        *,
        slot_of_token: npt.NDArray[np.int32] | None = None,
        bias: _Float32 | None = None,
        logit_scale: float = 1.0,
        logit_softcap: float | None = None,
    ) -> None:
        self._score, self._choose, opened, close = _declare(native.library())
        rows, *coded = table.flat()
        arrays = (rows, *coded, bias, slot_of_token)
        if not all(array is None or array.flags.c_contiguous for array in arrays):
            raise OptionError("The rows cannot be scored.", expected="contiguous tables")
        self._arrays = arrays  # whose memory is read
        self._count, self._width = len(rows), table.shape[2]
        structure = _Rows(
            _address(rows),
            *(map(_address, coded) if coded else (None, None)),
            _TYPES[rows.dtype.name],
            self._count,
            self._width,
            table.shape[1],
            None if bias is None else _address(bias),
            None if slot_of_token is None else _address(slot_of_token),
            logit_scale,
            logit_softcap or 0.0,
        )
        self._table = ctypes.byref(structure)
        structure.single = opened(self._table)
        if not structure.single:
            raise MemoryError
        weakref.finalize(self, close, structure.single)

    def __call__(self, numbers: npt.NDArray[np.integer], states: _Float32) -> _Float32:
        """Products, without bias, scale and soft-cap.

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
        if states.shape != (batch, self._width):
            raise OptionError(
                "The states do not fit the rows.",
                found=f"states {list(states.shape)} and numbers {list(numbers.shape)}",
                expected=f"[B, {self._width}] and [B, n]",
            )
        out = np.empty((batch, count), np.float32)
        numbers, states = np.ascontiguousarray(numbers, np.int64), np.ascontiguousarray(states, np.float32)
        status = self._score(self._table, _address(numbers), count, _address(states), batch, _address(out))
        if status == _NO_SUCH_ROW:
            raise OptionError(
                "The numbers of rows are out of range.", found=numbers.max(), expected=f"below {self._count}"
            )
        _check(status)
        return out

    def best_token(
        self, state: _Float32, ids: _Int64, logits: _Float32, token: int, remembered: _Int64, kept: _Int64
    ) -> int | None:
        """The greedy token among a head's candidates and some other tokens, whose rows are scored.

        Args:
            state: What the head saw, [H] float32.
            ids: Candidates, whole clusters of C, -1 for padding, [M] int64.
            logits: Their logits, [M] float32.
            token: The greedy one of them.
            remembered: Other tokens, -1 for none, any shape, contiguous int64.
            kept: Where the likeliest tokens of both go, likeliest first, -1 where there are fewer, [n] contiguous
                int64.

        Returns:
            The token, ties to the lowest id; None where the logits are not finite.
        """
        state, logits = np.ascontiguousarray(state, np.float32), np.ascontiguousarray(logits, np.float32)
        ids, best = np.ascontiguousarray(ids, np.int64), ctypes.c_int64()
        status = self._choose(
            self._table,
            _address(state),
            _address(ids),
            _address(logits),
            len(ids),
            token,
            _address(remembered),
            remembered.size,
            len(kept),
            _address(kept),
            ctypes.byref(best),
        )
        _check(status)
        return None if status == _NOT_FINITE else best.value


def _check(status: int) -> None:
    """Raise what a status stands for."""
    if status == _NO_MEMORY:
        raise MemoryError
    if status == _NOT_READ:
        raise BundleError(
            "A row of the vocabulary cannot be read any more.",
            found="an error, or the end, of the file that the bundle was opened with",
            hint="the file was cut off or its disk is gone: copy or export the bundle again",
        )


@lru_cache(maxsize=1)
def _declare(library: ctypes.CDLL) -> tuple[Any, Any, Any, Any]:
    """The C functions in native/capi_rows.cpp, their types stated once."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    score, choose = library.flashhead_score_rows, library.flashhead_best_token
    score.argtypes = [pointer, pointer, integer, pointer, integer, pointer]
    choose.argtypes = [*(pointer,) * 4, integer, integer, pointer, integer, integer, pointer, pointer]
    opened, close = library.flashhead_open_rows, library.flashhead_close_rows
    opened.argtypes, opened.restype = [pointer], pointer
    close.argtypes, close.restype = [pointer], None
    return score, choose, opened, close


def _address(array: npt.NDArray[Any]) -> int:
    """What ``array.ctypes.data`` is, in a fraction of the time."""
    address: int = array.__array_interface__["data"][0]
    return address
