"""The two-stage head as operators of torch: Triton kernels on GPUs, plain torch everywhere else.

Registered as ``torch.ops.flashhead_edge.*`` with shapes for tracing, so that ``torch.compile`` and CUDA graphs take
them. All shapes follow from those of the inputs: nothing waits for the device. On a GPU without Triton they raise; they
do not fall back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from flashhead_edge.kernels import torch_functions
from flashhead_edge.kernels.head_tensors import CentroidTensors, HeadTensors, LogitColumns


class Candidates(NamedTuple):
    """What stage 2 says of B states.

    Attributes:
        token_ids: Greedy tokens, ties to the lowest id, [B] int64.
        ids: Candidates, -1 for padding, [B, M] int64.
        logits: Their logits, -inf for padding, [B, M] float32.
    """

    token_ids: torch.Tensor
    ids: torch.Tensor
    logits: torch.Tensor


def score_clusters(centroids: CentroidTensors, states: torch.Tensor) -> torch.Tensor:
    """Stage 1.

    Args:
        centroids: The head's centroids.
        states: [B, H], any floating type.

    Returns:
        Products of states and centroids, plus bias, [B, K] float32: before scale and soft-cap.
    """
    products: torch.Tensor = torch.ops.flashhead_edge.score_clusters(
        states.contiguous(), centroids.codes, centroids.scales, centroids.bias, centroids.bits
    )
    return products


def score_candidates(head: HeadTensors, states: torch.Tensor, probes: torch.Tensor) -> Candidates:
    """Stage 2 as lists: of the probed clusters, then of the always-scored tokens.

    Args:
        head: The head's tensors.
        states: [B, H], any floating type.
        probes: Clusters to open, 0 to K - 1, none twice in a row, [B, P] int64 or int32.

    Returns:
        Tokens and candidates.
    """
    return Candidates(
        *torch.ops.flashhead_edge.score_candidates(states.contiguous(), probes.contiguous(), *head.arguments())
    )


def score_into_logits(
    head: HeadTensors, states: torch.Tensor, probes: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stage 2 into the candidates' columns of full-width logits; the others must be filled by :func:`fill_closed`.

    Args:
        head: The head's tensors.
        states: [B, H], any floating type.
        probes: Clusters to open, 0 to K - 1, none twice in a row, [B, P] int64 or int32.
        width: W, columns of the result, more than any token id.

    Returns:
        Logits [B, W] in the type of the states, and the best logit of each row, [B] float32. Devices that share a
        vocabulary take the greatest of their best logits before they fill.
    """
    logits, best = torch.ops.flashhead_edge.score_into_logits(
        states.contiguous(), probes.contiguous(), *head.arguments(), width
    )
    return logits, best


def fill_closed(
    columns: LogitColumns,
    activation: torch.Tensor,
    logits: torch.Tensor,
    best_logits: torch.Tensor,
    probes: torch.Tensor,
    products: torch.Tensor,
) -> None:
    """Write what is expected of a token of each closed cluster into its tokens' columns, below the best logit.

    Args:
        columns: Which cluster each column belongs to.
        activation: See :func:`~flashhead_edge.kernels.head_tensors.activation_values`.
        logits: What :func:`score_into_logits` gave, [B, W]; written to.
        best_logits: The best exact logit of each row, [B] float32.
        probes: Clusters that were opened, [B, P] int64.
        products: What :func:`score_clusters` gave, [B, K] float32.
    """
    is_open = torch.zeros_like(products, dtype=torch.uint8).scatter_(1, probes.long(), 1)
    torch.ops.flashhead_edge.fill_closed(
        logits, best_logits, is_open, products, columns.cluster_of_token, columns.estimate_offset, activation
    )


def full_width_logits(
    head: HeadTensors, columns: LogitColumns, states: torch.Tensor, probes: torch.Tensor, products: torch.Tensor
) -> torch.Tensor:
    """Logits of the whole vocabulary: exact for candidates, estimates for the others.

    Args:
        head: The head's tensors.
        columns: Which cluster each column belongs to.
        states: [B, H], any floating type.
        probes: Clusters to open, 0 to K - 1, none twice in a row, [B, P] int64.
        products: What :func:`score_clusters` gave, [B, K] float32.

    Returns:
        [B, W] in the type of the states; -inf where no token is. The greatest logit of each row is exact.
    """
    logits, best = score_into_logits(head, states, probes, columns.width)
    fill_closed(columns, head.activation, logits, best, probes, products)
    return logits


def _register(name: str, schema: str, shapes: Callable[..., Any], written: tuple[str, ...] = ()) -> None:
    """Give an operator its implementations, plain torch and Triton, and its results' shapes."""

    def launch(*arguments: Any) -> Any:
        from flashhead_edge.kernels import launches

        return getattr(launches, name)(*arguments)

    operator = torch.library.custom_op(
        f"flashhead_edge::{name}", getattr(torch_functions, name), mutates_args=written, schema=schema
    )
    operator.register_kernel("cuda")(launch)
    operator.register_fake(shapes)


def _num_candidates(probes: torch.Tensor, token_order: torch.Tensor, num_clusters: int) -> Any:
    """M."""
    return (probes.shape[1] + token_order.shape[0] - num_clusters) * token_order.shape[1]


def _clusters_shapes(states: torch.Tensor, codes: torch.Tensor, *_: Any) -> torch.Tensor:
    return states.new_empty(states.shape[0], codes.shape[0], dtype=torch.float32)


def _candidates_shapes(
    states: torch.Tensor, probes: torch.Tensor, rows: torch.Tensor, token_order: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, ...]:
    shape = (states.shape[0], _num_candidates(probes, token_order, rest[-1]))
    return (
        states.new_empty(shape[0], dtype=torch.int64),
        states.new_empty(shape, dtype=torch.int64),
        states.new_empty(shape, dtype=torch.float32),
    )


def _logits_shapes(states: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
    batch = states.shape[0]
    return states.new_empty(batch, rest[-1]), states.new_empty(batch, dtype=torch.float32)


_HEAD = "Tensor rows, Tensor token_order, Tensor activation, Tensor? row_scales, Tensor? row_bias, int num_clusters"
_register(
    "score_clusters", "(Tensor states, Tensor codes, Tensor scales, Tensor bias, int bits) -> Tensor", _clusters_shapes
)
_register(
    "score_candidates", f"(Tensor states, Tensor probes, {_HEAD}) -> (Tensor, Tensor, Tensor)", _candidates_shapes
)
_register(
    "score_into_logits", f"(Tensor states, Tensor probes, {_HEAD}, int width) -> (Tensor, Tensor)", _logits_shapes
)
_register(
    "fill_closed",
    "(Tensor(a!) logits, Tensor best_logits, Tensor is_open, Tensor products, Tensor cluster_of_token, "
    "Tensor estimate_offset, Tensor activation) -> ()",
    lambda *_: None,
    ("logits",),
)
