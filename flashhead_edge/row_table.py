"""The table of vocabulary rows of a bundle, whatever it is stored in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionError
from flashhead_edge.quantize import BLOCK_SIZE, join_nibbles

_Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RowTable:
    """Rows in the order of the clusters; memory-mapped or not.

    Attributes:
        rows: [T, C, H] float16 or float32; or of int8 codes the high nibbles, [T, C, H / 32, 16] uint8.
        low: Of int8 codes the low nibbles, [T, C, H / 32, 16] uint8 (:func:`~flashhead_edge.quantize.split_nibbles`).
        scales: Of int8 codes the factor of every 32 numbers of a row, [T, C, H / 32] float16.

    Raises:
        OptionError: Types or shapes do not go together.
    """

    rows: npt.NDArray[Any]
    low: npt.NDArray[np.uint8] | None = None
    scales: npt.NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        found = [_kind(array) for array in (self.rows, self.low, self.scales)]
        shape = self.rows.shape
        expected: list[list[Any]] = [[("float16", shape), None, None], [("float32", shape), None, None]]
        if len(shape) == 4:
            nibbles = ("uint8", (*shape[:3], BLOCK_SIZE // 2))
            expected = [[nibbles, nibbles, ("float16", shape[:3])]]
        if len(shape) not in (3, 4) or found not in expected:
            raise OptionError(
                "These are no rows of a head.",
                found=f"{found[0]}, low nibbles {found[1]}, scales {found[2]}",
                expected="[T, C, H] float16 or float32, or nibbles [T, C, H / 32, 16] uint8 twice with "
                "scales [T, C, H / 32] float16",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, C and H."""
        clusters, size, width = self.rows.shape[:3]
        return clusters, size, width if self.scales is None else width * BLOCK_SIZE

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, scales included."""
        clusters, size, _ = self.shape
        return sum(array.nbytes for array in self.arrays) // (clusters * size)

    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """All that there is of ``rows``, ``low`` and ``scales``."""
        return tuple(array for array in (self.rows, self.low, self.scales) if array is not None)

    def clusters(self, which: Any) -> _Float32:
        """Rows of some clusters.

        Args:
            which: Anything that indexes the first axis.

        Returns:
            [..., C, H] float32: exactly what is stored.
        """
        return _widened(*(array[which] for array in self.arrays))

    def slots(self, which: Any) -> _Float32:
        """Rows of some slots.

        Args:
            which: Anything that indexes the slots ``t * C + c``.

        Returns:
            [..., H] float32: exactly what is stored.
        """
        return _widened(*(array[which] for array in self.flat()))

    def first(self, count: int) -> RowTable:
        """The first clusters; views, no copies."""
        return RowTable(*(array[:count] for array in self.arrays))

    def joined(self, count: int) -> RowTable:
        """Every ``count`` neighbours one cluster; views, no copies.

        Args:
            count: A divisor of T.
        """
        clusters, size, _ = self.shape
        shape = (clusters // count, size * count)
        return RowTable(*(array.reshape(*shape, *array.shape[2:]) for array in self.arrays))

    def flat(self) -> tuple[npt.NDArray[Any], ...]:
        """:attr:`arrays` by slot, [T * C, ...] each: views, no copies."""
        # Views of plain arrays: every slice of a memmap takes longer.
        return tuple(np.asarray(array).reshape(-1, *array.shape[2:]) for array in self.arrays)

    def floats(self) -> npt.NDArray[Any]:
        """[T, C, H] float16 or float32: the stored array where it is one, else a float32 copy."""
        return self.rows if self.scales is None else self.clusters(slice(None))


def _kind(array: npt.NDArray[Any] | None) -> tuple[str, tuple[int, ...]] | None:
    return None if array is None else (array.dtype.name, array.shape)


def _widened(
    rows: npt.NDArray[Any], low: npt.NDArray[np.uint8] | None = None, scales: npt.NDArray[np.float16] | None = None
) -> _Float32:
    if low is None or scales is None:
        return rows.astype(np.float32)
    wide = join_nibbles(np.asarray(rows), np.asarray(low)).astype(np.float32)
    blocks = wide.reshape(*scales.shape, BLOCK_SIZE)
    blocks *= scales[..., None]
    return wide
