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

    ids, logits = _opened(states, probes, rows, token_order, activation, row_scales, row_bias, num_clusters)
    best = (logits == logits.amax(dim=1, keepdim=True)) & (ids >= 0)
    return torch.where(best, ids, torch.iinfo(torch.int64).max).amin(dim=1), ids, logits


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
    ids, logits = _opened(
        states, probes, rows, token_order, activation, row_scales, row_bias, num_clusters, rounded=True
    )
    # One column more takes what belongs nowhere.
    full = states.new_zeros(len(states), width + 1)
    full.scatter_(1, ids.where(ids >= 0, width), logits.to(full.dtype))
    return full[:, :width].contiguous(), logits.amax(dim=1)


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

    num_clusters = products.shape[1]
    products = products + estimate_offset
    ceiling = (best_logits - best_logits.abs().clamp(min=1) * activation[2]).unsqueeze(1)
    estimates = torch.minimum(activate(products, activation), ceiling)
    estimates = estimates.where(products != -torch.inf, -torch.inf)
    # One look-up for all columns: what each cluster's get, infinity for those that stay, -inf where no token is.
    stays = torch.inf
    table = logits.new_full((len(logits), num_clusters + 2), stays)
    table[:, 1:-1] = estimates.where(is_open == 0, stays)
    table[:, 0] = -torch.inf
    columns = table.index_select(1, cluster_of_token.clamp(max=num_clusters) + 1)
    torch.where(columns == stays, logits, columns, out=logits)


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
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [B, M] int64 and logits [B, M] float32 of the opened clusters' slots.

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
    return ids, activate(products, activation).where(ids >= 0, -torch.inf)
