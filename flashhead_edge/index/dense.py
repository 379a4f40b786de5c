"""The dense head on many states: the truth that an index is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.lm_head import LmHead
from flashhead_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    import torch

#: Logits held at a time, in numbers: 64 MB.
_LOGITS_AT_ONCE = 1 << 24


def dense_argmax(head: LmHead, states: torch.Tensor, *, progress: Progress = no_progress) -> torch.Tensor:
    """Token of the greatest logit for every state, the lowest id among equals.

    Scale (positive) and soft-cap are monotone, so dot products and bias suffice.

    Args:
        head: The dense head.
        states: [N, H] float32.
        progress: Told of every batch of states.

    Returns:
        [N] int64.
    """
    import torch

    rows = torch.from_numpy(head.rows)
    bias = None if head.bias is None else torch.from_numpy(head.bias)
    batch = max(1, _LOGITS_AT_ONCE // head.vocab_size)
    tokens = []
    for start in range(0, len(states), batch):
        products = states[start : start + batch].cpu() @ rows.T
        if bias is not None:
            products += bias
        tokens.append(products.argmax(dim=1))
        progress("scoring densely", min(start + batch, len(states)), len(states))
    return torch.cat(tokens)
