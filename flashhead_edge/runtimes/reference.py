"""The oracle: the two-stage head in plain numpy, as its definition reads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import OptionError
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.row_table import RowTable
from flashhead_edge.runtimes.base import HeadOutput, HeadShape

#: Bits of a centroid for each precision; 32 means that centroids stay as they are.
CENTROID_BITS = {"int4": 4, "int8": 8, "fp32": 32}


class ReferenceHead:
    """Executes a head step by step, for tests and for bundles on machines without a runtime.

    Args:
        index: The head's index.
        rows: Table of rows in the order of ``index.token_order``, or an array [T, C, H] float16 or float32 of them.
        num_probes: P.
        row_bias: Bias of every slot, [T, C] float32, or None.
        logit_scale: Factor on the logits.
        logit_softcap: Soft-cap of the logits, or None.
        centroid_precision: "int4", "int8" or "fp32": what stage 1 reads.
    """

    name = "reference"
    providers: tuple[str, ...] = ("numpy",)

    def __init__(
        self,
        index: HeadIndex,
        rows: RowTable | npt.NDArray[np.generic],
        num_probes: int,
        *,
        row_bias: npt.NDArray[np.float32] | None = None,
        logit_scale: float = 1.0,
        logit_softcap: float | None = None,
        centroid_precision: str = "fp32",
    ) -> None:
        if not 1 <= num_probes <= index.num_clusters:
            raise OptionError(
                "The number of probes is out of range.", found=num_probes, expected=f"1 to {index.num_clusters}"
            )
        self.shape = HeadShape(
            index.vocab_size,
            index.hidden_size,
            index.num_clusters,
            index.cluster_size,
            num_probes,
            index.num_candidates(num_probes),
        )
        self._index = index
        self._rows = rows if isinstance(rows, RowTable) else RowTable(rows)
        self._row_bias = row_bias
        self._scale = np.float32(logit_scale)
        self._softcap = None if logit_softcap is None else np.float32(logit_softcap)
        bits = CENTROID_BITS.get(centroid_precision)
        if bits is None:
            raise OptionError(
                "The precision of the centroids is unknown.",
                found=centroid_precision,
                expected=", ".join(CENTROID_BITS),
            )
        self._centroids = index.narrow_centroids
        if bits != 32:
            self._centroids = quantize_rows(self._centroids, bits).dequantize()

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> ReferenceHead:
        """Open the head of a bundle; the table stays memory-mapped."""
        manifest = bundle.manifest
        return cls(
            bundle.index(),
            bundle.rows(),
            manifest.index.num_probes,
            row_bias=bundle.table(layout.ROW_BIAS).astype(np.float32) if manifest.has_bias else None,
            logit_scale=manifest.logit_scale,
            logit_softcap=manifest.logit_softcap,
            centroid_precision=manifest.index.centroid_precision,
        )

    def run(self, hidden_states: npt.NDArray[np.float32]) -> HeadOutput:
        """Score states; see :meth:`HeadRuntime.run`."""
        states = self.shape.check_states(hidden_states)
        projection = self._index.projection
        narrow = states if projection is None else states @ projection
        products = narrow @ self._centroids.T + self._index.centroid_bias
        opened = self._opened(products + self._index.selection_offset)
        candidates = self._rows.clusters(opened).reshape(len(states), -1, self.shape.hidden_size)
        logits = np.einsum("bmh,bh->bm", candidates, states)
        ids = self._index.token_order[opened].reshape(len(states), -1).astype(np.int64)
        if self._row_bias is not None:
            logits = logits + self._row_bias[opened].reshape(len(states), -1)
        logits = np.where(ids < 0, np.float32(-np.inf), self._activate(logits))
        best = logits.max(axis=1, keepdims=True)
        tokens = np.where(logits == best, ids, np.iinfo(np.int64).max).min(axis=1)
        return HeadOutput(tokens, ids, logits, self._activate(products))

    def _opened(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """The best P clusters of every state, then the always-scored ones, [B, P + A / C]."""
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.shape.num_probes]
        always = np.arange(self._index.num_clusters, len(self._index.token_order))
        return np.concatenate([order, np.broadcast_to(always, (len(scores), len(always)))], axis=1)

    def _activate(self, products: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Scale and soft-cap."""
        logits: npt.NDArray[np.float32] = products * self._scale
        if self._softcap is not None:
            logits = self._softcap * np.tanh(logits / self._softcap)
        return logits
