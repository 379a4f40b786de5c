"""Launches of the Triton kernels: grids and outputs. Arguments are those of the operators.

Shapes say everything that a launch needs, so nothing here waits for the device, and CUDA graphs can record it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.errors import OptionalDependencyError
from flashhead_edge.kernels.block_sizes import CANDIDATES, CLUSTERS, COLUMNS, KEYS, NUM_WARPS, blocks

try:
    from flashhead_edge.kernels import triton_stage1, triton_stage2
except ImportError as error:
    raise OptionalDependencyError("triton", "torch", "The two-stage head on a GPU") from error

if TYPE_CHECKING:
    import torch


def score_clusters(
    states: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor, bits: int
) -> torch.Tensor:
    """Products of states and centroids, plus bias, [B, K] float32."""
    import torch

    batch, hidden_size = states.shape
    clusters, row_blocks, _ = codes.shape
    products = states.new_empty(batch, clusters, dtype=torch.float32)
    grid = (batch, blocks(clusters, CLUSTERS["BLOCK_K"]))
    with torch.cuda.device_of(states):
        triton_stage1.score_clusters[grid](
            states,
            codes,
            scales,
            bias,
            hidden_size,
            clusters,
            row_blocks,
            products,
            **CLUSTERS,
            BITS=bits,
            num_warps=NUM_WARPS,
        )
    return products


def score_candidates(
    states: torch.Tensor,
    probes: torch.Tensor,
    rows: torch.Tensor,
    token_order: torch.Tensor,
    activation: torch.Tensor,
    row_scales: torch.Tensor | None,
    row_bias: torch.Tensor | None,
    num_clusters: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Greedy tokens [B] int64, candidates' ids [B, M] int64 and logits [B, M] float32."""
    import torch

    batch, candidates, parts = _sizes(probes, token_order, num_clusters)
    ids = states.new_empty(batch, candidates, dtype=torch.int64)
    logits = states.new_empty(batch, candidates, dtype=torch.float32)
    keys = states.new_empty(batch, parts, dtype=torch.int64)
    tokens = states.new_empty(batch, dtype=torch.int64)
    with torch.cuda.device_of(states):
        triton_stage2.score_candidates[(parts, batch)](
            *_inputs(states, probes, rows, token_order, activation, row_scales, row_bias, num_clusters),
            ids,
            logits,
            keys,
            **CANDIDATES,
            BY_TOKEN=rows.ndim == 2,
            num_warps=NUM_WARPS,
        )
        triton_stage2.best_tokens[(batch,)](keys, parts, tokens, **KEYS, num_warps=NUM_WARPS)
    return tokens, ids, logits


def score_into_logits(
    states: torch.Tensor,
    probes: torch.Tensor,
    rows: torch.Tensor,
    token_order: torch.Tensor,
    activation: torch.Tensor,
    row_scales: torch.Tensor | None,
    row_bias: torch.Tensor | None,
    num_clusters: int,
    width: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, width] in the states' type, of candidates only, and the best of them [B] float32."""
    import torch

    batch, _, parts = _sizes(probes, token_order, num_clusters)
    logits = states.new_empty(batch, width)
    best = states.new_empty(batch, parts, dtype=torch.float32)
    with torch.cuda.device_of(states):
        triton_stage2.score_into_logits[(parts, batch)](
            *_inputs(states, probes, rows, token_order, activation, row_scales, row_bias, num_clusters),
            width,
            logits,
            best,
            **CANDIDATES,
            BY_TOKEN=rows.ndim == 2,
            num_warps=NUM_WARPS,
        )
    return logits, best.amax(dim=1)


def fill_closed(
    logits: torch.Tensor,
    best_logits: torch.Tensor,
    is_open: torch.Tensor,
    products: torch.Tensor,
    cluster_of_token: torch.Tensor,
    estimate_offset: torch.Tensor,
    activation: torch.Tensor,
) -> None:
    """Write estimates into the columns of ``logits`` whose clusters are closed, and -inf where no token is."""
    import torch

    batch, width = logits.shape
    with torch.cuda.device_of(logits):
        triton_stage2.fill_closed[(blocks(width, COLUMNS["BLOCK_V"]), batch)](
            best_logits,
            is_open,
            cluster_of_token,
            products,
            estimate_offset,
            activation,
            products.shape[1],
            width,
            logits,
            **COLUMNS,
            num_warps=NUM_WARPS,
        )


def _sizes(probes: torch.Tensor, token_order: torch.Tensor, num_clusters: int) -> tuple[int, int, int]:
    """B, M and the number of blocks that M candidates make."""
    batch, num_probes = probes.shape
    places, cluster_size = token_order.shape
    candidates = (num_probes + places - num_clusters) * cluster_size
    return batch, candidates, blocks(candidates, CANDIDATES["BLOCK_C"])


def _inputs(
    states: torch.Tensor,
    probes: torch.Tensor,
    rows: torch.Tensor,
    token_order: torch.Tensor,
    activation: torch.Tensor,
    row_scales: torch.Tensor | None,
    row_bias: torch.Tensor | None,
    num_clusters: int,
) -> tuple[torch.Tensor | int, ...]:
    """The parameters that the kernels of stage 2 share; what is missing is replaced by something that is not read."""
    num_probes = probes.shape[1]
    places, cluster_size = token_order.shape
    return (
        states,
        probes,
        rows,
        activation if row_scales is None else row_scales,
        activation if row_bias is None else row_bias,
        token_order,
        activation,
        rows.shape[-1],
        cluster_size,
        num_probes,
        num_clusters,
        num_probes + places - num_clusters,
        int(row_bias is not None),
    )
