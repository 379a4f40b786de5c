"""Rows into equal clusters, in the metric of the states that they will meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.index.bisection import balanced_bisection
from flashhead_edge.index.metric import ActivationMetric
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
    # Ascending ids, then holes: the order within a cluster means nothing, and this one is easy to read.
    ascending = torch.where(members < 0, head.vocab_size, members).sort(dim=1).values
    return torch.where(ascending == head.vocab_size, -1, ascending).cpu()
