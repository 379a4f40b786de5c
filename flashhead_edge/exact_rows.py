"""Exact logits of any tokens, from the table that the head reads anyway."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout, native
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.native.row_scorer import RowScorer
from flashhead_edge.row_table import RowTable

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle

_Float32 = npt.NDArray[np.float32]
_Int64 = npt.NDArray[np.int64]

#: Fewer rows than this a thread are not worth handing over.
_ROWS_A_THREAD = 2048


class ExactRows:
    """Scores tokens one by one, summed in float32; the table stays memory-mapped.

    Args:
        index: The head's index.
        rows: Table of rows in the order of ``index.token_order``, or an array [T, C, H] float16 or float32 of them.
        row_bias: Bias of every slot, [T, C] float32, or None.
        logit_scale: Factor on the logits.
        logit_softcap: Soft-cap of the logits, or None.
        threads: Threads that share many rows.
    """

    def __init__(
        self,
        index: HeadIndex,
        rows: RowTable | npt.NDArray[np.generic],
        *,
        row_bias: _Float32 | None = None,
        logit_scale: float = 1.0,
        logit_softcap: float | None = None,
        threads: int = 1,
    ) -> None:
        self.index = index
        self._rows = rows if isinstance(rows, RowTable) else RowTable(rows)
        self._scorer: RowScorer | None = None
        self._bias = row_bias
        self._scale = np.float32(logit_scale)
        self._softcap = None if logit_softcap is None else np.float32(logit_softcap)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int = 1) -> ExactRows:
        """The rows of a bundle's head.

        Args:
            bundle: An opened bundle.
            threads: Threads that share many rows.
        """
        manifest = bundle.manifest
        return cls(
            bundle.index(),
            bundle.rows(),
            row_bias=bundle.table(layout.ROW_BIAS).astype(np.float32) if manifest.has_bias else None,
            logit_scale=manifest.logit_scale,
            logit_softcap=manifest.logit_softcap,
            threads=threads,
        )

    def token_logits(self, hidden_state: _Float32, token_ids: _Int64) -> _Float32:
        """Logits of some tokens.

        Args:
            hidden_state: Output of the final norm, [H] float32.
            token_ids: [N] int64.

        Returns:
            [N] float32, after scale and soft-cap.
        """
        return self.slot_logits(hidden_state, self.index.slot_of_token[token_ids])

    def slot_logits(self, hidden_state: _Float32, slots: npt.NDArray[np.integer]) -> _Float32:
        """Logits of what stands in some slots of the table, whatever it is in slots of padding.

        Args:
            hidden_state: Output of the final norm, [H] float32.
            slots: ``t * C + c`` each, [N]; ascending ones are read fastest.

        Returns:
            [N] float32, after scale and soft-cap.
        """
        shares = min(self._threads, len(slots) // _ROWS_A_THREAD)
        if self._pool is not None and shares > 1:
            first, *rest = np.array_split(slots, shares)
            others = [self._pool.submit(self._products, part, hidden_state) for part in rest]
            products = np.concatenate([self._products(first, hidden_state), *(other.result() for other in others)])
        else:
            products = self._products(slots, hidden_state)
        if self._bias is not None:
            products = products + self._bias.reshape(-1)[slots]
        return self.activate(products)

    def cluster_logits(self, hidden_state: _Float32, clusters: _Int64) -> tuple[_Int64, _Float32]:
        """Tokens of whole clusters and their logits.

        Args:
            hidden_state: Output of the final norm, [H] float32.
            clusters: Numbers of clusters, [N] int64.

        Returns:
            Ids, without padding, and logits, both [<= N * C].
        """
        ids = self.index.token_order[clusters].astype(np.int64).ravel()
        ids = ids[ids >= 0]
        return ids, self.token_logits(hidden_state, ids)

    def _products(self, slots: npt.NDArray[np.integer], hidden_state: _Float32) -> _Float32:
        """Products of the rows in some slots with a state, [N] float32."""
        products: _Float32
        scorer = self.scorer
        if scorer is not None and len(slots):
            products = scorer(slots[None], hidden_state[None])[0]
            return products
        # Not a BLAS product: its threads would wait for ONNX Runtime's, which spin between steps.
        products = np.einsum("nh,h->n", self._rows.slots(slots), hidden_state)
        return products

    @property
    def scorer(self) -> RowScorer | None:
        """The native library's way to do the same; None where it cannot be used."""
        if not native.is_available():
            return None
        if self._scorer is None:
            self._scorer = RowScorer(
                self._rows,
                slot_of_token=self.index.slot_of_token,
                bias=self._bias,
                logit_scale=float(self._scale),
                logit_softcap=None if self._softcap is None else float(self._softcap),
            )
        return self._scorer

    def activate(self, products: _Float32) -> _Float32:
        """Scale and soft-cap.

        Args:
            products: Products with rows, biases included, any shape.

        Returns:
            Logits of the same shape.
        """
        logits: _Float32 = products * self._scale
        if self._softcap is not None:
            logits = self._softcap * np.tanh(logits / self._softcap)
        return logits
