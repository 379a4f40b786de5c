"""Balanced bisection: points into clusters of equal size, by halving.

A node of the tree holds the points of k clusters. It is split in two along the direction between the means of its
halves, found like two-means with a fixed split size (a few power iterations give the first direction), until every
node holds one cluster. Sizes are equal by construction, so no balancing step follows. The nodes of a level are split
in batches: at most two numbers of clusters occur in a level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.errors import OptionError
from flashhead_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    import torch

#: Slots handled together: about what stays in a core's cache while a batch of nodes is iterated on.
_BATCH_SLOTS = 8192
_POWER_ITERATIONS = 3
#: Columns moved at once when a large node is reordered in place: bounds the extra memory.
_COLUMN_BLOCK = 32


def balanced_bisection(
    points: torch.Tensor,
    size: int,
    num_clusters: int,
    *,
    rounds: int = 6,
    seed: int = 0,
    progress: Progress = no_progress,
) -> torch.Tensor:
    """Partition points into equal clusters of near neighbours.

    Args:
        points: [K * ceil(V / K), r] float32, on any device: V points, then rows that are ignored. Used up: the points
            are reordered in place, since a copy would be the largest part of the memory needed.
        size: V.
        num_clusters: K, from 1 to V; need not be a power of two, nor divide V.
        rounds: Two-means rounds at each split.
        seed: Seed of the first directions.
        progress: Told of every level of the tree.

    Returns:
        Members of each cluster, [K, ceil(V / K)] int64 on the points' device, followed by -1 in empty slots: the order
        in which the points now lie.

    Raises:
        OptionError: ``num_clusters`` is out of range.
    """
    import torch

    width = points.shape[1]
    if not 1 <= num_clusters <= size:
        raise OptionError("The number of clusters is out of range.", found=num_clusters, expected=f"1 to {size}")
    capacity = -(-size // num_clusters)
    slots = num_clusters * capacity
    if len(points) != slots:
        raise OptionError("The points do not fill the clusters.", found=len(points), expected=f"{slots} rows")
    # Empty slots are zero rows behind a node's points: they leave every sum alone and are never moved forward.
    points[size:] = 0
    ids = torch.full((slots,), -1, dtype=torch.int64, device=points.device)
    ids[:size] = torch.arange(size, device=points.device)
    generator = torch.Generator(device="cpu").manual_seed(seed)

    nodes = {num_clusters: torch.zeros(1, dtype=torch.int64)}  # clusters in a node -> first slots of such nodes
    depth, levels = 0, (num_clusters - 1).bit_length()
    while any(clusters > 1 for clusters in nodes):
        children: dict[int, list[torch.Tensor]] = {}
        for clusters, starts in sorted(nodes.items(), reverse=True):
            left = (clusters + 1) // 2
            children.setdefault(left, []).append(starts)
            if clusters == 1:
                continue
            children.setdefault(clusters - left, []).append(starts + left * capacity)
            per_batch = max(1, _BATCH_SLOTS // (clusters * capacity))
            for batch in starts.split(per_batch):
                direction = torch.randn((len(batch), width), generator=generator).to(points)
                _split_nodes(points, ids, batch, clusters, capacity, direction, rounds)
        nodes = {clusters: torch.cat(parts).sort().values for clusters, parts in children.items()}
        depth += 1
        progress("clustering", depth, levels)

    return ids.view(num_clusters, capacity)


def _split_nodes(
    points: torch.Tensor,
    ids: torch.Tensor,
    starts: torch.Tensor,
    clusters: int,
    capacity: int,
    direction: torch.Tensor,
    rounds: int,
) -> None:
    """Split nodes in two, in place: near neighbours in the same half, each half's empty slots behind its points.

    Args:
        points: All points, [slots, r] float32.
        ids: Point in each slot, -1 for none, [slots] int64.
        starts: First slot of each node, [n] int64.
        clusters: Clusters in each node; the left half gets ``ceil(clusters / 2)`` of them.
        capacity: Slots of a cluster.
        direction: Random first directions, [n, r].
        rounds: Two-means rounds.
    """
    import torch

    slots = clusters * capacity
    index = (starts.unsqueeze(1) + torch.arange(slots)).to(points.device)
    left_slots = (clusters + 1) // 2 * capacity
    filled = (ids[index] >= 0).sum(dim=1, keepdim=True)
    # Holes are shared out in proportion, within what each side can hold.
    left = (filled * left_slots + slots // 2) // slots
    left = torch.minimum(torch.maximum(left, filled - (slots - left_slots)), left.clamp(max=left_slots))

    # The rows of a large node are moved column by column, in place; a copy would double the memory.
    large = len(index) == 1
    rows = slice(int(index[0, 0]), int(index[0, -1]) + 1)
    block = points[rows].unsqueeze(0) if large else points[index]
    block_ids = ids[index]
    valid = block_ids >= 0
    direction = _leading_direction(block, valid, filled, direction)
    order = _order_along_split(block, valid, filled, left, direction, rounds)

    place = torch.arange(index.shape[1], device=points.device).unsqueeze(0)
    source = torch.where(
        place < left_slots,
        torch.where(place < left, place, filled + place - left),
        torch.where(place - left_slots < filled - left, left + place - left_slots, place),
    )
    order = order.gather(1, source)
    ids[index] = block_ids.gather(1, order)
    if large:
        for column in range(0, points.shape[1], _COLUMN_BLOCK):
            columns = points[rows, column : column + _COLUMN_BLOCK]
            columns.copy_(columns[order[0]])
    else:
        points[index] = block.gather(1, order.unsqueeze(2).expand_as(block))


def _leading_direction(
    block: torch.Tensor, valid: torch.Tensor, filled: torch.Tensor, direction: torch.Tensor
) -> torch.Tensor:
    """Power iterations towards each node's direction of greatest variance, [n, r]."""
    import torch

    mean = block.sum(dim=1) / filled.clamp(min=1)
    for _ in range(_POWER_ITERATIONS):
        weight = torch.bmm(block, direction.unsqueeze(2)).squeeze(2)
        weight = (weight - (mean * direction).sum(dim=1, keepdim=True)).masked_fill_(~valid, 0)
        # (x - mean) weighted by w sums to sum(w x) - sum(w) mean.
        direction = torch.bmm(weight.unsqueeze(1), block).squeeze(1) - weight.sum(dim=1, keepdim=True) * mean
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-30)
    return direction


def _order_along_split(
    block: torch.Tensor,
    valid: torch.Tensor,
    filled: torch.Tensor,
    left: torch.Tensor,
    direction: torch.Tensor,
    rounds: int,
) -> torch.Tensor:
    """Order each node's points along its splitting direction, empty slots last.

    Args:
        block: Points of the nodes, [n, m, r].
        valid: Which slots hold a point, [n, m] bool.
        filled: Points in each node, [n, 1].
        left: Points that go to the left half, [n, 1].
        direction: First directions, [n, r].
        rounds: Two-means rounds.

    Returns:
        Slots in order, [n, m] int64.
    """
    import torch

    total = block.sum(dim=1)
    place = torch.arange(block.shape[1], device=block.device).unsqueeze(0)
    in_left = (place < left).to(block.dtype).expand(len(block), -1)
    for step in range(rounds + 1):
        along = torch.bmm(block, direction.unsqueeze(2)).squeeze(2).masked_fill_(~valid, float("inf"))
        order = along.argsort(dim=1, stable=True)
        if step == rounds:
            break
        chosen = torch.zeros_like(along).scatter_(1, order, in_left)
        left_sum = torch.bmm(chosen.unsqueeze(1), block).squeeze(1)
        left_mean = left_sum / left.clamp(min=1)
        right_mean = (total - left_sum) / (filled - left).clamp(min=1)
        direction = right_mean - left_mean
    return order
