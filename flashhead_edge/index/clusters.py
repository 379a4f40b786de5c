"""Clusters of rows, and what stands for each: its mean, and how far its members' logits stray from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.index.bisection import balanced_bisection
from flashhead_edge.index.metric import ActivationMetric
from flashhead_edge.index.refinement import refine_clusters
from flashhead_edge.lm_head import LmHead
from flashhead_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    import torch

_ROWS_AT_ONCE = 16384


def cluster_rows(
    head: LmHead,
    metric: ActivationMetric,
    num_clusters: int,
    *,
    alpha: float,
    rounds: int,
    refinements: int,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> torch.Tensor:
    """Put the rows into equal clusters, in the tempered metric.

    Args:
        head: The dense head.
        metric: Where the rows are compared.
        num_clusters: K.
        alpha: Tempering of the metric.
        rounds: Two-means rounds at each split.
        refinements: Passes in which neighbouring clusters exchange tokens.
        seed: Seed of everything random.
        device: torch device for the clustering.
        progress: Told of every stage.

    Returns:
        Members of each cluster, [K, ceil(V / K)] int64 on the CPU, ascending, followed by -1 in empty slots.
    """
    import torch

    projection = metric.tempered(alpha)
    slots = num_clusters * -(-head.vocab_size // num_clusters)
    points = torch.empty((slots, projection.shape[1]), device=device)
    for start in range(0, head.vocab_size, _ROWS_AT_ONCE):
        rows = torch.from_numpy(head.rows[start : start + _ROWS_AT_ONCE]).to(device)
        points[start : start + len(rows)] = rows @ projection
    members = balanced_bisection(points, head.vocab_size, num_clusters, rounds=rounds, seed=seed, progress=progress)
    members = refine_clusters(points, members, refinements, seed=seed, progress=progress)
    # Ascending ids, then holes: the order within a cluster means nothing, and this one is easy to read.
    ascending = torch.where(members < 0, head.vocab_size, members).sort(dim=1).values
    return torch.where(ascending == head.vocab_size, -1, ascending).cpu()


def mean_rows(head: LmHead, members: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Plain means of the members' rows [K, H] and biases [K], in the original space."""
    import torch

    rows = torch.from_numpy(head.rows)
    total = torch.zeros((len(members), head.hidden_size))
    for column in members.T:
        filled = column >= 0
        total[filled] += rows[column[filled]]
    count = (members >= 0).sum(dim=1).clamp(min=1)
    bias = None
    if head.bias is not None:
        biases = torch.from_numpy(head.bias)[members.clamp(min=0)].masked_fill(members < 0, 0)
        bias = biases.sum(dim=1) / count
    return total / count.unsqueeze(1), bias


def cluster_variances(
    head: LmHead, metric: ActivationMetric, members: torch.Tensor, centroids: torch.Tensor, device: str
) -> torch.Tensor:
    """Mean over states and members of ``((w_i - c) . h) ** 2``, [K] float32, in the kept directions."""
    import torch

    projection = metric.directions * metric.eigenvalues.clamp(min=0).sqrt()
    rows = torch.from_numpy(head.rows)
    total = torch.zeros(len(members))
    step = max(1, _ROWS_AT_ONCE // members.shape[1])
    for start in range(0, len(members), step):
        block = members[start : start + step]
        offsets = rows[block.clamp(min=0)] - centroids[start : start + step].unsqueeze(1)
        squares = (offsets.to(device) @ projection).square().sum(dim=2).cpu().masked_fill(block < 0, 0)
        total[start : start + step] = squares.sum(dim=1)
    return total / (members >= 0).sum(dim=1).clamp(min=1)


def selection_offset(variance: torch.Tensor, weight: float, bias: torch.Tensor | None) -> torch.Tensor:
    """What is added to the centroids' products before clusters are chosen, [K] float32."""
    offset = variance.sqrt() * weight
    return offset if bias is None else offset + bias
