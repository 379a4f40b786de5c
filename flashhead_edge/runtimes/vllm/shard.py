"""The part of a head that one device has: its tensors, and full-width logits from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flashhead_edge.kernels.head_tensors import CentroidTensors, HeadTensors, LogitColumns, activation_values
from flashhead_edge.quantize import quantize_rows

if TYPE_CHECKING:
    import torch

    from flashhead_edge.index.head_index import HeadIndex

#: Bits of stage 1 on a GPU; elsewhere it is a float32 product.
_GPU_BITS = 8


@dataclass(frozen=True)
class HeadShard:
    """Tensors of one device's tokens; scale and soft-cap are left to vLLM, which applies them afterwards.

    Attributes:
        head: Stage 2; its rows are vLLM's own weight, [W, H].
        columns: Cluster of each of the W rows.
        centroids: [K, H] float32, or codes of them.
        bias: [K] float32.
        selection_offset: [K] float32.
        num_probes: P.
    """

    head: HeadTensors
    columns: LogitColumns
    centroids: torch.Tensor | CentroidTensors
    bias: torch.Tensor
    selection_offset: torch.Tensor
    num_probes: int

    def candidates(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Score states up to the point where devices must agree on the best logit.

        Args:
            states: [N, H], any floating type.

        Returns:
            Logits [N, W] of candidates only, the best of them [N] float32, opened clusters [N, P], products [N, K].
        """
        import torch

        from flashhead_edge.kernels import operators

        if isinstance(self.centroids, torch.Tensor):
            products = torch.addmm(self.bias, states.float(), self.centroids.T)
        else:
            products = operators.score_clusters(self.centroids, states)
        probes = (products + self.selection_offset).topk(self.num_probes, dim=1).indices
        logits, best = operators.score_into_logits(self.head, states, probes, self.columns.width)
        return logits, best, probes, products

    def fill(
        self, logits: torch.Tensor, best: torch.Tensor, probes: torch.Tensor, products: torch.Tensor
    ) -> torch.Tensor:
        """Write estimates of closed clusters below the best logit of all devices.

        Args:
            logits: What :meth:`candidates` gave, [N, W]; written to.
            best: The best exact logit over all devices, [N] float32.
            probes: Opened clusters, [N, P].
            products: [N, K].

        Returns:
            The same logits, -inf where no token is.
        """
        from flashhead_edge.kernels import operators

        operators.fill_closed(self.columns, self.head.activation, logits, best, probes, products)
        return logits


def build_shard(
    index: HeadIndex, rows: torch.Tensor, row_bias: torch.Tensor | None, first_token: int, num_tokens: int, probes: int
) -> HeadShard:
    """Lay a head out on the device of its rows.

    Args:
        index: The index of the whole head.
        rows: The device's rows [W, H]: those of ``num_tokens`` tokens in order, then padding. Shared, not copied.
        row_bias: Bias of the rows, [W], or None.
        first_token: Id of the first row.
        num_tokens: Tokens that the device has.
        probes: P.
    """
    import torch

    def place(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(rows.device)

    local = index.token_order - first_token
    local = np.where((index.token_order >= 0) & (local >= 0) & (local < num_tokens), local, -1).astype(np.int32)
    clusters = np.full(len(rows), -1, dtype=np.int32)
    clusters[:num_tokens] = index.slot_of_token[first_token : first_token + num_tokens] // index.cluster_size
    centroids: torch.Tensor | CentroidTensors
    if rows.device.type == "cuda":
        codes = quantize_rows(index.centroids, _GPU_BITS)
        centroids = CentroidTensors(place(codes.codes), place(codes.scales), place(index.centroid_bias), _GPU_BITS)
    else:
        centroids = place(index.centroids)
    return HeadShard(
        head=HeadTensors(
            rows=rows,
            token_order=place(local),
            num_clusters=index.num_clusters,
            activation=place(np.array(activation_values(dtype=rows.dtype), dtype=np.float32)),
            row_bias=None if row_bias is None else row_bias.float().contiguous(),
        ),
        columns=LogitColumns(place(clusters), place(np.zeros(index.num_clusters, dtype=np.float32))),
        centroids=centroids,
        bias=place(index.centroid_bias),
        selection_offset=place(index.selection_offset),
        num_probes=probes,
    )
