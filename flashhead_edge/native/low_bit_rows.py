"""Scans of all rows of a head in 8 or 4 bits on the CPU, and exact products of single rows.

What a dense head in low precision costs, without its mistakes: the scan finds the best few rows and says how far any
other row could reach, and the few are scored again as they are stored. Rows are shared among threads of Python, which
sleep between calls and hold no lock while they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ctypes import CDLL, c_float, c_int, c_int64, c_void_p
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from flashhead_edge import native
from flashhead_edge.errors import OptionError
from flashhead_edge.quantize import BLOCK_SIZE, QuantizedRows

_Float32 = npt.NDArray[np.float32]
_Int64 = npt.NDArray[np.int64]
_Part = TypeVar("_Part")
#: Rows measured at a time, which bounds the extra memory.
_PIECE = 16384


class BestRows(NamedTuple):
    """What a scan found for B states.

    Attributes:
        rows: Numbers of the best rows by low-bit product, best first, the lower first on a tie; -1 beyond the last row,
            [B, N] int64.
        products: Their low-bit products, the bias added, [B, N] float32.
        rest: No row that is not in ``rows`` has an exact product, the bias added, above this; NaN where a state is not
            finite and nothing can be said, [B] float32.
    """

    rows: _Int64
    products: _Float32
    rest: _Float32


class LowBitRows:
    """Rows in blocks of low-bit codes, with what is known of their errors.

    Args:
        quantized: Codes and scales of N rows; they may be memory-mapped and are read in place.
        errors: Upper bounds of |row - what its codes stand for| (Euclidean), [N] float32.
        norm: Upper bound of the length of what any row's codes stand for.
        bias: Added to the products, [N] float32, or None.
        threads: Threads that share a scan.

    Raises:
        OptionError: Shapes or types do not fit each other, or ``threads`` is not positive.
    """

    def __init__(
        self,
        quantized: QuantizedRows,
        errors: _Float32,
        norm: float,
        *,
        bias: _Float32 | None = None,
        threads: int = 1,
    ) -> None:
        count, blocks = len(quantized.codes), -(-quantized.width // BLOCK_SIZE)
        if quantized.bits not in (4, 8) or threads < 1:
            raise OptionError("Bits or threads are out of range.", found=f"{quantized.bits} bits, {threads} threads")
        _check_array("codes", quantized.codes, (count, blocks, BLOCK_SIZE * quantized.bits // 8), np.uint8)
        _check_array("scales", quantized.scales, (count, blocks), np.float16)
        _check_array("errors", errors, (count,), np.float32)
        if bias is not None:
            _check_array("bias", bias, (count,), np.float32)
        self._quantized, self._errors, self._norm, self._bias = quantized, errors, norm, bias
        borders = [count * i // threads for i in range(threads + 1)]
        self._parts = [slice(*pair) for pair in pairwise(borders) if pair[0] < pair[1]]
        self._pool = ThreadPoolExecutor(len(self._parts) - 1) if len(self._parts) > 1 else None

    @classmethod
    def measured(
        cls,
        rows: npt.NDArray[np.generic],
        quantized: QuantizedRows,
        *,
        bias: _Float32 | None = None,
        threads: int = 1,
    ) -> LowBitRows:
        """Measure the errors of quantized rows, in double precision and rounded up.

        Args:
            rows: The rows as stored, [N, H] float16 or float32.
            quantized: Their codes and scales.
            bias: Added to the products, [N] float32, or None.
            threads: Threads that share a scan.
        """
        errors = np.empty(len(rows), np.float32)
        norm = 0.0
        for start in range(0, len(rows), _PIECE):
            piece = slice(start, start + _PIECE)
            part = QuantizedRows(quantized.codes[piece], quantized.scales[piece], quantized.bits, quantized.width)
            values = part.dequantize().astype(np.float64)
            lengths = np.linalg.norm(rows[piece].astype(np.float64) - values, axis=1)
            errors[piece] = np.nextafter((lengths * (1 + 1e-12)).astype(np.float32), np.float32(np.inf))
            norm = max(norm, float(np.linalg.norm(values, axis=1).max(initial=0)))
        return cls(quantized, errors, norm * (1 + 1e-6), bias=bias, threads=threads)

    def products(self, states: _Float32) -> _Float32:
        """Low-bit products of all rows, without the bias.

        Args:
            states: [B, H] float32.

        Returns:
            [B, N] float32.

        Raises:
            OptionError: The states do not fit.
            RuntimeUnavailableError: The native library cannot be used.
        """
        library, states = _library(), _checked(states, self._quantized.width)

        def scan(part: slice) -> _Float32:
            out = np.empty((len(states), part.stop - part.start), np.float32)
            _succeed(
                library.flashhead_scan(*self._stored(part), *self._sizes(part), _at(states), len(states), _at(out))
            )
            return out

        return np.concatenate(self._share(scan), axis=1)

    def best(self, states: _Float32, count: int) -> BestRows:
        """The best rows by low-bit product, and how far the others can reach.

        Args:
            states: [B, H] float32.
            count: N, how many rows to find, 1 or more.

        Returns:
            The rows found; if the greatest exact product among them is above ``rest``, it is the greatest of all.

        Raises:
            OptionError: The states do not fit, or ``count`` is not positive.
            RuntimeUnavailableError: The native library cannot be used.
        """
        if count < 1:
            raise OptionError("The number of rows to find is out of range.", found=count, expected="1 or more")
        library, states = _library(), _checked(states, self._quantized.width)
        batch = len(states)

        def scan(part: slice) -> tuple[_Int64, _Float32, _Float32, _Float32]:
            rows = np.empty((batch, count), np.int64)
            products, reaches = np.empty((batch, count), np.float32), np.empty((batch, count), np.float32)
            rest = np.empty((batch, 1), np.float32)
            bias = None if self._bias is None else _at(self._bias[part])
            known = (_at(self._errors[part]), bias, self._norm)
            found = (_at(rows), _at(products), _at(reaches), _at(rest))
            _succeed(
                library.flashhead_scan_best(
                    *self._stored(part), *known, *self._sizes(part), _at(states), batch, count, *found
                )
            )
            return np.where(rows < 0, rows, rows + part.start), products, reaches, rest

        # Of what the parts found, the best stay; the others join the rest.
        parts = (np.concatenate(arrays, axis=1) for arrays in zip(*self._share(scan), strict=True))
        rows, products, reaches, rest = parts
        order = np.lexsort((np.where(rows < 0, np.iinfo(np.int64).max, rows), -products), axis=1)
        lost = np.take_along_axis(reaches, order[:, count:], axis=1)
        kept = order[:, :count]
        rest = np.concatenate([rest, lost], axis=1).max(axis=1)  # NaN if one is
        return BestRows(np.take_along_axis(rows, kept, axis=1), np.take_along_axis(products, kept, axis=1), rest)

    def _stored(self, part: slice) -> tuple[c_void_p, c_void_p, int]:
        codes, scales = self._quantized.codes[part], self._quantized.scales[part]
        return _at(codes), _at(scales), self._quantized.bits

    def _sizes(self, part: slice) -> tuple[int, int]:
        return part.stop - part.start, self._quantized.width

    def _share(self, scan: Callable[[slice], _Part]) -> list[_Part]:
        """Run a scan over the parts of the rows, the first on this thread."""
        if self._pool is None:
            return [scan(part) for part in self._parts]
        others = [self._pool.submit(scan, part) for part in self._parts[1:]]
        return [scan(self._parts[0]), *(other.result() for other in others)]


@lru_cache(maxsize=1)
def _declare(library: CDLL) -> CDLL:
    """State the types of the C functions in native/capi.cpp, once."""
    stored: list[Any] = [c_void_p, c_void_p, c_int]
    states: list[Any] = [c_void_p, c_int64]
    found: list[Any] = [c_void_p] * 4
    library.flashhead_scan.argtypes = [*stored, c_int64, c_int64, *states, c_void_p]
    known: list[Any] = [c_void_p, c_void_p, c_float]
    library.flashhead_scan_best.argtypes = [*stored, *known, c_int64, c_int64, *states, c_int64, *found]
    return library


def _library() -> CDLL:
    return _declare(native.library())


def _at(array: npt.NDArray[Any]) -> c_void_p:
    return c_void_p(array.ctypes.data)


def _succeed(status: int) -> None:
    if status:
        raise MemoryError


def _checked(states: _Float32, width: int) -> _Float32:
    """The states as the library reads them."""
    if states.ndim != 2 or states.shape[1] != width or not len(states):
        raise OptionError("The states do not fit the rows.", found=list(states.shape), expected=f"[B, {width}]")
    return np.ascontiguousarray(states, np.float32)


def _check_array(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    """Refuse what would be read out of bounds."""
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        raise OptionError(
            f"The {name} of the low-bit rows do not fit.",
            found=f"{array.dtype} of shape {list(array.shape)}",
            expected=f"contiguous {np.dtype(dtype)} of shape {list(shape)}",
        )
