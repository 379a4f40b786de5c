"""What the kernels compute, in plain torch: for devices without Triton, and to read.

Arguments are those of the operators in :mod:`flashhead_edge.kernels.operators`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Centroids dequantized at a time, which bounds the extra memory.
_CHUNK = 4096


def score_clusters(
    states: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor, bits: int
) -> torch.Tensor:
    """Products of states and centroids, plus bias, [B, K] float32."""
    import torch

    states = states.float()
    parts = []
    for part, scale in zip(codes.split(_CHUNK), scales.split(_CHUNK), strict=True):
        numbers = torch.stack([part & 15, part >> 4], dim=-1).flatten(2) if bits == 4 else part
        rows = (numbers.float() - (1 << (bits - 1))) * scale.unsqueeze(-1)
        parts.append(states @ rows.flatten(1)[:, : states.shape[1]].T)
    return torch.cat(parts, dim=1) + bias


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

    _, ids, logits = _opened(states, probes, rows, token_order, activation, row_scales, row_bias, num_clusters)
    best = (logits == logits.amax(dim=1, keepdim=True)) & (ids >= 0)
    return torch.where(best, ids, torch.iinfo(torch.int64).max).amin(dim=1), ids, logits


def open_clusters(
    products: torch.Tensor,
    selection_offset: torch.Tensor,
    estimate_offset: torch.Tensor,
    activation: torch.Tensor,
    num_probes: int,
) -> torch.Tensor:
    """Estimates of closed clusters' tokens, infinity for opened clusters, [K, B] float32."""
    import torch

    scores = products + selection_offset
    expected = products + estimate_offset
    estimates = activate(expected, activation).clamp(max=torch.finfo(torch.float32).max)
    estimates = estimates.where(expected != -torch.inf, -torch.inf)
    lowest = scores.topk(num_probes, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    above, level = scores > lowest, scores == lowest
    room = num_probes - above.sum(dim=1, keepdim=True)  # for the first of the clusters that are level
    opened = above | (level & (level.cumsum(dim=1) <= room))
    return estimates.where(~opened, torch.inf).T.contiguous()


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
    probes = estimates.T.topk(num_probes, dim=1, sorted=False).indices
    head = (rows, token_order, activation, row_scales, row_bias, num_clusters)
    slots, _, logits = _opened(states, probes, *head, rounded=True)
    exact = states.new_zeros(len(states), token_order.numel())
    exact.scatter_(1, slots, logits.to(exact.dtype))
    return exact.T.contiguous(), logits.amax(dim=1)


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

    num_clusters, batch = estimates.shape
    slots = slot_of_token.clamp(min=0)
    ceiling = best_logits - best_logits.abs().clamp(min=1) * activation[2]
    # One look-up for all columns: infinity where the exact logit stands.
    table = exact.new_full((num_clusters + 1, batch), torch.inf)
    table[:-1] = torch.minimum(estimates, ceiling).where(estimates != torch.inf, torch.inf)
    values = table.T.index_select(1, (slots // cluster_size).clamp(max=num_clusters))
    values = torch.where(values == torch.inf, exact.T.index_select(1, slots), values)
    return values.where(slot_of_token >= 0, -torch.inf).contiguous()


def activate(products: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """Scale and soft-cap."""
    logits = products * activation[0]
    softcap = activation[1]
    divisor = softcap.where(softcap > 0, 1.0)
    return (softcap * (logits / divisor).tanh()).where(softcap > 0, logits)


def _opened(
    states: torch.Tensor,
    probes: torch.Tensor,
    rows: torch.Tensor,
    token_order: torch.Tensor,
    activation: torch.Tensor,
    row_scales: torch.Tensor | None,
    row_bias: torch.Tensor | None,
    num_clusters: int,
    *,
    rounded: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slots [B, M] int64 of the opened clusters, their ids [B, M] int64 and logits [B, M] float32.

    With ``rounded``, products may be rounded to the type that rows and states share.
    """
    import torch

    places, size = token_order.shape
    always = torch.arange(num_clusters, places, device=states.device).expand(len(states), -1)
    clusters = torch.cat([probes.long(), always], dim=1)
    slots = (clusters.unsqueeze(2) * size + torch.arange(size, device=states.device)).flatten(1)
    ids = token_order.flatten()[slots].long()
    table = rows.reshape(-1, rows.shape[-1])
    chosen = slots if rows.ndim == 3 else ids.clamp(min=0)
    # State by state: gathered rows of a whole batch could be larger than the table.
    if rounded and table.dtype == states.dtype:  # to widen all rows takes longer
        pairs = zip(chosen, states, strict=True)
        products = torch.stack([torch.mv(table.index_select(0, row), state) for row, state in pairs]).float()
    else:
        pairs = zip(chosen, states.float(), strict=True)
        products = torch.stack([table.index_select(0, row).float() @ state for row, state in pairs])
    if row_scales is not None:
        products = products * row_scales.flatten()[chosen]
    if row_bias is not None:
        products = products + row_bias.flatten()[chosen]
    return slots, ids, activate(products, activation).where(ids >= 0, -torch.inf)
