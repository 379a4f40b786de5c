r"""The dense head's token, always, for less than a dense head costs.

All rows are scanned in 8 bits (where the bundle has low-bit rows); the best few are scored again as they are stored,
and the scan bounds what any other row could reach: its low-bit product, plus the length of its rounding error times
the length of the state, plus rounding (:mod:`flashhead_edge.native.low_bit_rows`). A computed product differs from the
exact one by at most ``(H + 1) u |row| |state|`` with u = 2^-24, so the best of the few is the dense head's token if it
is above that bound by more than this. Where it is not, and wherever more than the best token is asked for, every row
is scored as it is stored.

"The dense head" is every row's product in float32, computed by the same function, and ties go to the lowest id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout, native
from flashhead_edge.errors import RuntimeUnavailableError
from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.native.low_bit_rows import LowBitRows
from flashhead_edge.quantize import BLOCK_SIZE, QuantizedRows

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle

_Float32 = npt.NDArray[np.float32]
_Int64 = npt.NDArray[np.int64]

#: Rows scored again; in int8 the dense token was among the best 4 of Gemma 3 270M for 600 of 600 states.
_RESCORED = 64
_UNIT = 2.0**-24


class ExactHead:
    """Finds the dense head's token.

    Args:
        rows: The head's rows.
        low_bit: The same rows in 8 bits, in the order of the table's slots, or None to score all rows each time.
        row_norm: Upper bound of the length of a row as stored; needed with ``low_bit``.

    Attributes:
        proven: Tokens found by the scan so far.
        scored: Passes over all rows so far.

    Raises:
        RuntimeUnavailableError: The native library cannot be used.
    """

    def __init__(self, rows: ExactRows, low_bit: LowBitRows | None = None, *, row_norm: float = np.inf) -> None:
        if not native.is_available():
            raise RuntimeUnavailableError(
                "The exact head needs the native library.",
                found=native.unavailable_because(),
                hint="install flashhead-edge where a C++ compiler is, or take --head dense",
            )
        self._rows = rows
        self._low_bit = low_bit
        self._rounding = (rows.index.hidden_size + 1) * _UNIT * row_norm
        self._order = rows.index.token_order.ravel().astype(np.int64)
        self.proven = 0
        self.scored = 0

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int = 1) -> ExactHead:
        """The exact head of a bundle; with int8 low-bit rows (``export --low-bit-rows int8``) it scans those.

        Args:
            bundle: An opened bundle.
            threads: Threads that share a pass over the rows.
        """
        rows = ExactRows.from_bundle(bundle, threads=threads)
        tables = bundle.manifest.tables
        record = tables.get(layout.LOW_BIT_CODES)
        if record is None or record.shape[-1] != BLOCK_SIZE or bundle.manifest.logit_scale <= 0:
            # No low-bit rows, or four bits, which prove next to nothing, or an order turned around.
            return cls(rows)
        table = bundle.rows().floats()
        stored = table.reshape(-1, table.shape[2])
        codes, scales = bundle.table(layout.LOW_BIT_CODES), bundle.table(layout.LOW_BIT_SCALES)
        quantized = QuantizedRows(
            codes.reshape(-1, *codes.shape[2:]).view(np.uint8),
            scales.reshape(-1, scales.shape[2]).view(np.float16),
            8,
            stored.shape[1],
        )
        bias = None
        if bundle.manifest.has_bias:
            bias = np.ascontiguousarray(bundle.table(layout.ROW_BIAS), dtype=np.float32).ravel()
        norm = max(
            float(np.linalg.norm(stored[i : i + 16384].astype(np.float64), axis=1).max())
            for i in range(0, len(stored), 16384)
        )
        low_bit = LowBitRows.measured(stored, quantized, bias=bias, threads=threads)
        return cls(rows, low_bit, row_norm=norm * (1 + 1e-9))

    def all_logits(self, hidden_state: _Float32) -> _Float32:
        """Logits of all tokens.

        Args:
            hidden_state: Output of the final norm, [H] float32.

        Returns:
            [V] float32, after scale and soft-cap.
        """
        self.scored += 1
        logits = self._rows.slot_logits(hidden_state, np.arange(len(self._order)))
        return np.asarray(logits[self._rows.index.slot_of_token])

    def best(self, hidden_state: _Float32) -> tuple[_Int64, _Float32]:
        """Tokens among which the dense head's is, the one with the greatest logit, and the lowest id of several.

        Args:
            hidden_state: Output of the final norm, [H] float32.

        Returns:
            Distinct ids [N] int64, and their logits [N] float32.
        """
        if self._low_bit is not None:
            found = self._low_bit.best(hidden_state[None], _RESCORED)
            slots = found.rows[0][found.rows[0] >= 0]
            ids = self._order[slots]
            ids = ids[ids >= 0]  # padding's codes are zero and may come first
            if len(ids):
                logits = self._rows.token_logits(hidden_state, ids)
                if logits.max() > self._highest_logit(float(found.rest[0]), hidden_state):
                    self.proven += 1
                    return ids, logits
        return np.arange(self._rows.index.vocab_size, dtype=np.int64), self.all_logits(hidden_state)

    def _highest_logit(self, rest: float, hidden_state: _Float32) -> float:
        """What the logit of a row can be computed as whose exact product, with its bias, is at most ``rest``."""
        reach = rest + self._rounding * float(np.linalg.norm(hidden_state))
        rounded = np.float32(reach + 4 * _UNIT * abs(reach))
        logit = self._rows.activate(np.array([np.nextafter(rounded, np.float32(np.inf))]))
        return float(np.nextafter(logit[0], np.float32(np.inf)))
