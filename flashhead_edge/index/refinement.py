"""Refinement of equal clusters: neighbouring clusters exchange points.

A bisection never moves a point across an earlier cut. Here clusters are paired with near neighbours, wherever these
lie in the tree, and each pair's points are split again along the direction between the two means, which can only
bring points closer to their means. Sizes stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.index.bisection import reorder_nodes
from flashhead_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    import torch

#: Nearest clusters that a cluster may be paired with; a random one of them is, so that passes differ.
_NEIGHBOURS = 12
#: Passes between two searches for neighbours, which cost K ** 2.
_PASSES_PER_SEARCH = 6
_ROUNDS = 3
_CLUSTERS_AT_ONCE = 1024
#: Clusters whose distances to all others are held at a time.
_SEARCHED_AT_ONCE = 256


def refine_clusters(
    points: torch.Tensor,
    members: torch.Tensor,
    passes: int,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> torch.Tensor:
    """Let clusters exchange points with their neighbours.

    Args:
        points: Points in the order of ``members``, [K * C, r] float32, zero where there is none; reordered in place.
        members: Index of the point in each slot, -1 for none, [K, C] int64.
        passes: How often every cluster is paired.
        seed: Seed of the pairing.
        progress: Told of every pass.

    Returns:
        The new members, [K, C] int64, empty slots last.
    """
    import torch

    count, capacity = members.shape
    ids = members.reshape(-1).clone()
    if count < 3:
        return members
    generator = torch.Generator(device="cpu").manual_seed(seed)
    for number in range(passes):
        if number % _PASSES_PER_SEARCH == 0:
            near = _near_clusters(points.view(count, capacity, -1), ids.view(count, capacity))
        pairs = _pairs(near, generator)
        place = torch.arange(capacity)
        for batch in pairs.split(max(1, _CLUSTERS_AT_ONCE // 2)):
            index = (batch.unsqueeze(2) * capacity + place).reshape(len(batch), -1).to(points.device)
            left = (ids[index[:, :capacity]] >= 0).sum(dim=1, keepdim=True)
            reorder_nodes(points, ids, index, capacity, left, None, _ROUNDS)
        progress("refining clusters", number + 1, passes)
    return ids.view(count, capacity)


def _near_clusters(blocks: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """Nearest other clusters by their means, [K, n] int64 on the CPU."""
    import torch

    filled = (members >= 0).sum(dim=1, keepdim=True).clamp(min=1)
    means = torch.cat([block.sum(dim=1) for block in blocks.split(_CLUSTERS_AT_ONCE)]) / filled
    norms = means.square().sum(dim=1)
    near = torch.empty((len(means), min(_NEIGHBOURS, len(means) - 1)), dtype=torch.int64)
    # One buffer for all blocks: large ones that come and go among small ones leave the heap in pieces.
    buffer = torch.empty((min(_SEARCHED_AT_ONCE, len(means)), len(means)), device=means.device)
    for start in range(0, len(means), _SEARCHED_AT_ONCE):
        block = means[start : start + _SEARCHED_AT_ONCE]
        distance = torch.addmm(norms, block, means.T, alpha=-2, out=buffer[: len(block)])
        rows = torch.arange(len(block), device=means.device)
        distance[rows, rows + start] = float("inf")
        near[start : start + len(block)] = distance.topk(near.shape[1], largest=False).indices
    return near


def _pairs(near: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Disjoint pairs of near clusters, [n, 2] int64, drawn in random order."""
    import torch

    count, width = near.shape
    choices = near[:, torch.randperm(width, generator=generator)].tolist()
    taken = [False] * count
    pairs = []
    for first in torch.randperm(count, generator=generator).tolist():
        if taken[first]:
            continue
        second = next((other for other in choices[first] if not taken[other]), None)
        if second is not None:
            taken[first] = taken[second] = True
            pairs.append((first, second))
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2)
