"""The table of vocabulary rows of a bundle, whatever it is stored in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionError
from flashhead_edge.quantize import BLOCK_SIZE

_Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RowTable:
    """Rows in the order of the clusters; memory-mapped or not.

    Attributes:
        rows: [T, C, H] float16 or float32; or int8 codes, which ``scales`` multiply.
        scales: Of int8 codes: one for every 32 numbers of a row, [T, C, H / 32] float16.

    Raises:
        OptionError: Types or shapes do not go together.
    """

    rows: npt.NDArray[Any]
    scales: npt.NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        coded = self.rows.dtype == np.int8
        shape = (*self.rows.shape[:-1], self.rows.shape[-1] // BLOCK_SIZE)
        found = None if self.scales is None else (self.scales.dtype.name, self.scales.shape)
        fits = found == (("float16", shape) if coded and self.rows.shape[-1] % BLOCK_SIZE == 0 else None)
        if self.rows.ndim != 3 or self.rows.dtype not in (np.float16, np.float32, np.int8) or not fits:
            raise OptionError(
                "These are no rows of a head.",
                found=f"{self.rows.dtype} {list(self.rows.shape)} with scales {found}",
                expected="[T, C, H] float16 or float32, or int8 with scales [T, C, H / 32] float16",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, C and H."""
        clusters, size, width = self.rows.shape
        return clusters, size, width

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, scales included."""
        width = self.shape[2]
        return width * self.rows.dtype.itemsize + (0 if self.scales is None else width // BLOCK_SIZE * 2)

    def clusters(self, which: Any) -> _Float32:
        """Rows of some clusters.

        Args:
            which: Anything that indexes the first axis.

        Returns:
            [..., C, H] float32: exactly what is stored.
        """
        return _widened(self.rows[which], None if self.scales is None else self.scales[which])

    def slots(self, which: Any) -> _Float32:
        """Rows of some slots.

        Args:
            which: Anything that indexes the slots ``t * C + c``.

        Returns:
            [..., H] float32: exactly what is stored.
        """
        rows, scales = self.flat()
        return _widened(rows[which], None if scales is None else scales[which])

    def first(self, count: int) -> RowTable:
        """The first clusters; views, no copies."""
        return RowTable(self.rows[:count], None if self.scales is None else self.scales[:count])

    def joined(self, count: int) -> RowTable:
        """Every ``count`` neighbours one cluster; views, no copies.

        Args:
            count: A divisor of T.
        """
        clusters, size, _ = self.shape

        def join(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return array.reshape(clusters // count, size * count, array.shape[2])

        return RowTable(join(self.rows), None if self.scales is None else join(self.scales))

    def flat(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.float16] | None]:
        """Rows and scales by slot, [T * C, H] and [T * C, H / 32]: views, no copies."""
        # Views of plain arrays: every slice of a memmap takes longer.
        rows, scales = np.asarray(self.rows), self.scales
        return (
            rows.reshape(-1, rows.shape[2]),
            None if scales is None else np.asarray(scales).reshape(-1, scales.shape[2]),
        )

    def floats(self) -> npt.NDArray[Any]:
        """[T, C, H] float16 or float32: the stored array where it is one, else a float32 copy."""
        return self.rows if self.scales is None else self.clusters(slice(None))


def _widened(rows: npt.NDArray[Any], scales: npt.NDArray[np.float16] | None) -> _Float32:
    wide = rows.astype(np.float32)
    if scales is not None:
        blocks = wide.reshape(*scales.shape, BLOCK_SIZE)
        blocks *= scales[..., None]
    return wide
