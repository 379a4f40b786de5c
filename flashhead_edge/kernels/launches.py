"""Launches of the Triton kernels: grids and outputs. Arguments are those of the operators.

Shapes say everything that a launch needs, so nothing here waits for the device, and CUDA graphs can record it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.errors import OptionalDependencyError
from flashhead_edge.kernels.block_sizes import (
    CANDIDATES,
    KEYS,
    NUM_WARPS,
    blocks,
    cluster_sizes,
    column_sizes,
    covering,
    selecting_warps,
    token_sizes,
)

try:
    from triton import knobs

    from flashhead_edge.kernels import triton_logits, triton_stage1, triton_stage2
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
    sizes = cluster_sizes(batch, bits, states.element_size())
    grid = (blocks(clusters, sizes["BLOCK_K"]), blocks(batch, sizes["BLOCK_B"]))
    with torch.cuda.device_of(states):
        triton_stage1.score_clusters[grid](
            states,
            codes,
            scales,
            bias,
            hidden_size,
            clusters,
            row_blocks,
            batch,
            products,
            **sizes,
            BITS=bits,
            WIDE=knobs.runtime.interpret,
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


def open_clusters(
    products: torch.Tensor,
    selection_offset: torch.Tensor,
    estimate_offset: torch.Tensor,
    activation: torch.Tensor,
    num_probes: int,
) -> torch.Tensor:
    """Estimates of closed clusters' tokens, infinity for opened clusters, [K, B] float32."""
    import torch

    batch, clusters = products.shape
    estimates = products.new_empty(clusters, batch)
    width = covering(clusters)
    with torch.cuda.device_of(products):
        triton_stage1.open_clusters[(batch,)](
            products,
            selection_offset,
            estimate_offset,
            activation,
            clusters,
            num_probes,
            batch,
            estimates,
            BLOCK_K=width,
            num_warps=selecting_warps(width),
        )
    return estimates


def score_opened(
    states: torch.Tensor,
    estimates: torch.Tensor,
    rows: torch.Tensor,
    token_order: torch.Tensor,
    activation: torch.Tensor,
    row_scales: torch.Tensor | None,
    row_bias: torch.Tensor | None,
    num_clusters: int,
    num_probes: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [T * C, B] in the states' type, of opened clusters only, and the best of them [B] float32."""
    import torch

    batch, hidden_size = states.shape
    places, cluster_size = token_order.shape
    exact = states.new_empty(places * cluster_size, batch)
    best = states.new_full((batch,), -torch.inf, dtype=torch.float32)
    sizes = token_sizes(batch)
    grid = (places * blocks(cluster_size, sizes["BLOCK_C"]), blocks(batch, sizes["BLOCK_B"]))
    with torch.cuda.device_of(states):
        triton_logits.score_opened[grid](
            states,
            estimates,
            rows,
            activation if row_scales is None else row_scales,
            activation if row_bias is None else row_bias,
            token_order,
            activation,
            hidden_size,
            cluster_size,
            num_clusters,
            batch,
            int(row_bias is not None),
            exact,
            best,
            **sizes,
            BY_TOKEN=rows.ndim == 2,
            WIDE=knobs.runtime.interpret,
            num_warps=NUM_WARPS,
        )
    return exact, best


def spread_logits(
    exact: torch.Tensor,
    best_logits: torch.Tensor,
    estimates: torch.Tensor,
    slot_of_token: torch.Tensor,
    activation: torch.Tensor,
    cluster_size: int,
) -> torch.Tensor:
    """Logits of all columns [B, W] in the type of the exact ones."""
    import torch

    clusters, batch = estimates.shape
    width = len(slot_of_token)
    logits = exact.new_empty(batch, width)
    sizes = column_sizes(batch)
    grid = (blocks(width, sizes["BLOCK_V"]), blocks(batch, sizes["BLOCK_B"]))
    with torch.cuda.device_of(exact):
        triton_logits.spread_logits[grid](
            exact,
            best_logits,
            estimates,
            slot_of_token,
            activation,
            cluster_size,
            clusters,
            batch,
            width,
            logits,
            **sizes,
            num_warps=NUM_WARPS,
        )
    return logits


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
    """The parameters of ``score_candidates`` before its outputs; what is missing is replaced by what is not read."""
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
