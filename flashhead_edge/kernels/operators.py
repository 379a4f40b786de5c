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


def open_clusters(
    head: HeadTensors, columns: LogitColumns, products: torch.Tensor, selection_offset: torch.Tensor, num_probes: int
) -> torch.Tensor:
    """Choose the clusters to open, and say what is expected of a token of each other one.

    Args:
        head: The head's tensors.
        columns: The estimates' offset.
        products: What :func:`score_clusters` gave, [B, K] float32.
        selection_offset: Added to the products for the choice alone, [K] float32.
        num_probes: P, 1 to K.

    Returns:
        [K, B] float32: infinity for each state's P clusters with the greatest sums, among equal ones the first; logits
        for the others, -inf where no token is possible.
    """
    estimates: torch.Tensor = torch.ops.flashhead_edge.open_clusters(
        products, selection_offset, columns.estimate_offset, head.activation, num_probes
    )
    return estimates


def score_opened(
    head: HeadTensors, states: torch.Tensor, estimates: torch.Tensor, num_probes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stage 2 into the places of a table, for :func:`spread_logits`.

    Args:
        head: The head's tensors.
        states: [B, H], any floating type.
        estimates: What :func:`open_clusters` gave, [K, B] float32.
        num_probes: P, how many of each column of them are infinite.

    Returns:
        Logits of the opened clusters' slots, [T * C, B] in the type of the states, anything in the others; and the best
        logit of each state, [B] float32. Devices that share a vocabulary take the greatest of their best logits before
        they spread.
    """
    exact, best = torch.ops.flashhead_edge.score_opened(states.contiguous(), estimates, *head.arguments(), num_probes)
    return exact, best


def spread_logits(
    head: HeadTensors, columns: LogitColumns, exact: torch.Tensor, best_logits: torch.Tensor, estimates: torch.Tensor
) -> torch.Tensor:
    """Logits in the vocabulary's order: exact ones, and for closed clusters what is expected, below the best logit.

    Args:
        head: The head's tensors.
        columns: Which slot each column belongs to.
        exact: What :func:`score_opened` gave, [T * C, B].
        best_logits: The best exact logit of each state, [B] float32.
        estimates: What :func:`open_clusters` gave, [K, B] float32.

    Returns:
        [B, W] in the type of ``exact``; -inf where no token is.
    """
    logits: torch.Tensor = torch.ops.flashhead_edge.spread_logits(
        exact, best_logits, estimates, columns.slot_of_token, head.activation, head.token_order.shape[1]
    )
    return logits


def full_width_logits(
    head: HeadTensors,
    columns: LogitColumns,
    states: torch.Tensor,
    products: torch.Tensor,
    selection_offset: torch.Tensor,
    num_probes: int,
) -> torch.Tensor:
    """Logits of the whole vocabulary: exact for candidates, estimates for the others.

    Args:
        head: The head's tensors.
        columns: Which cluster each column belongs to.
        states: [B, H], any floating type.
        products: What :func:`score_clusters` gave, [B, K] float32.
        selection_offset: See :func:`open_clusters`.
        num_probes: P.

    Returns:
        [B, W] in the type of the states; -inf where no token is. The greatest logit of each row is exact.
    """
    estimates = open_clusters(head, columns, products, selection_offset, num_probes)
    exact, best = score_opened(head, states, estimates, num_probes)
    return spread_logits(head, columns, exact, best, estimates)


def _register(name: str, schema: str, shapes: Callable[..., Any]) -> None:
    """Give an operator its implementations, plain torch and Triton, and its results' shapes."""

    def launch(*arguments: Any) -> Any:
        from flashhead_edge.kernels import launches

        return getattr(launches, name)(*arguments)

    operator = torch.library.custom_op(
        f"flashhead_edge::{name}", getattr(torch_functions, name), mutates_args=(), schema=schema
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


def _opened_shapes(states: torch.Tensor, _: torch.Tensor, __: torch.Tensor, order: torch.Tensor, *rest: Any) -> Any:
    batch = states.shape[0]
    return states.new_empty(order.numel(), batch), states.new_empty(batch, dtype=torch.float32)


_HEAD = "Tensor rows, Tensor token_order, Tensor activation, Tensor? row_scales, Tensor? row_bias, int num_clusters"
_register(
    "score_clusters", "(Tensor states, Tensor codes, Tensor scales, Tensor bias, int bits) -> Tensor", _clusters_shapes
)
_register(
    "score_candidates", f"(Tensor states, Tensor probes, {_HEAD}) -> (Tensor, Tensor, Tensor)", _candidates_shapes
)
_register(
    "open_clusters",
    "(Tensor products, Tensor selection_offset, Tensor estimate_offset, Tensor activation, int num_probes) -> Tensor",
    lambda products, *_: torch.empty_like(products.T, memory_format=torch.contiguous_format),
)
_register(
    "score_opened",
    f"(Tensor states, Tensor estimates, {_HEAD}, int num_probes) -> (Tensor, Tensor)",
    _opened_shapes,
)
_register(
    "spread_logits",
    "(Tensor exact, Tensor best_logits, Tensor estimates, Tensor slot_of_token, Tensor activation, int cluster_size) "
    "-> Tensor",
    lambda exact, best, estimates, slots, *_: exact.new_empty(estimates.shape[1], slots.shape[0]),
)
