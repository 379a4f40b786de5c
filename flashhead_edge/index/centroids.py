r"""What stage 1 knows of a cluster: a row and a bias that predict the greatest logit among its members.

The published method scores a cluster by the mean of its members' rows. That predicts the members' *mean* logit, while
a cluster is worth opening for its *best* one. Over calibration states h the best product of cluster k,
``m_k(h) = max_i w_i . h``, is known, so its best affine prediction is a regression, shrunk to the mean row. It is
solved for all states first, and then again with weights: what matters is to be right where the cluster stands near
the P-th best one, so a state weighs ``sigmoid(m_k(h) - m_(P)(h))``, and the first solution is kept elsewhere.

At run time nothing changes but the numbers; all products are computed once. On Gemma 3 270M a given containment needs
less than half of the opened clusters that mean rows need.

For the distribution over the whole vocabulary a cluster's score should say its mass instead. With
``a_k(h) = log mean_i exp(w_i . h)`` (of logits, so with the head's scale), the mean of ``a_k`` less the prediction
moves the bias from the one to the other; it is taken back by ``selection_offset`` when clusters are chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flashhead_edge.index.regression import StateRegression
from flashhead_edge.lm_head import LmHead
from flashhead_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    import torch

#: Products held at a time, in numbers: 16 MB, which the C library reuses instead of asking the system for new pages.
_PRODUCTS_AT_ONCE = 1 << 22
_HALF_MAX = 65504.0
#: Weight of the first solution's predictions where the cluster does not compete.
_PRIOR_WEIGHT = 0.1
#: Bias of a cluster without tokens: it is opened after every other and has no mass.
EMPTY = -1e30


@dataclass(frozen=True)
class Centroids:
    """Stage 1 of a two-stage head; ``rows @ h + bias + selection_offset`` predicts a cluster's greatest product.

    Attributes:
        rows: [K, H] float32.
        bias: [K] float32; with it a score is the logarithm of the members' mean exponential, on average over states.
        selection_offset: [K] float32.
        variance: Variance of the score's error as that logarithm, [K] float32.
        tokens: Token of the greatest product among these clusters for every state, [N] int64.
        threshold: Greatest product of the P-th best cluster for every state, [N] float32.
    """

    rows: torch.Tensor
    bias: torch.Tensor
    selection_offset: torch.Tensor
    variance: torch.Tensor
    tokens: torch.Tensor
    threshold: torch.Tensor


def fit_centroids(
    head: LmHead,
    states: torch.Tensor,
    members: torch.Tensor,
    *,
    num_probes: int,
    prior_states: float,
    threshold: torch.Tensor | None = None,
    projection: torch.Tensor | None = None,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> Centroids:
    """Fit the centroids of clusters to calibration states.

    Args:
        head: The dense head.
        states: Calibration states, [N, H] float32.
        members: Members of each cluster, [K, C] int64, -1 in empty slots.
        num_probes: P, the clusters that will be opened.
        prior_states: Weight of the mean rows, as a number of states.
        threshold: What the clusters compete with at every state, [N], where these are not all of them.
        projection: Orthonormal columns [H, r] in whose span the centroids are to lie, or None.
        device: torch device for the products.
        progress: Told of every block of clusters.

    Returns:
        The centroids, on the CPU.
    """
    import torch

    states = states.to(device)
    regression = StateRegression(states if projection is None else states @ projection, prior_states)
    count, width = len(states), regression.inputs.shape[1] - 1
    # In half precision: rounding by a thousandth is nothing against what a linear prediction misses.
    greatest = torch.empty((count, len(members)), device=device, dtype=torch.float16)
    excess = torch.empty_like(greatest)  # log mean exp less greatest
    best = torch.full((count,), -torch.inf, device=device)
    tokens = torch.zeros(count, dtype=torch.int64, device=device)
    step = max(1, _PRODUCTS_AT_ONCE // (count * members.shape[1]))
    for start in range(0, len(members), step):
        block = members[start : start + step].to(device)
        products = _products(head, states, block)
        highest = products.amax(dim=2)
        lead, cluster = highest.max(dim=1)
        slot = products[torch.arange(count, device=device), cluster].argmax(dim=1)
        tokens = torch.where(lead > best, block[cluster, slot], tokens)
        best = torch.maximum(lead, best)
        greatest[:, start : start + step] = highest.clamp(-_HALF_MAX, _HALF_MAX)
        excess[:, start : start + step] = _log_mean_exp_excess(products, highest, block, head.logit_scale)
        progress("fitting centroids", min(start + step, len(members)), len(members))
    if threshold is None:
        chunks = greatest.split(max(1, _PRODUCTS_AT_ONCE // len(members)))
        threshold = torch.cat([chunk.topk(num_probes, dim=1).values[:, -1] for chunk in chunks])
    threshold = threshold.to(device, torch.float32)

    parts: list[tuple[torch.Tensor, ...]] = []
    step = max(1, _PRODUCTS_AT_ONCE // count)
    for start in range(0, len(members), step):
        block = members[start : start + step].to(device)
        empty = (block < 0).all(dim=1)
        mean, mean_bias = mean_rows(head, block, regression.unit)
        prior = torch.cat([mean if projection is None else mean @ projection, mean_bias], dim=1)
        target = greatest[:, start : start + step].float().masked_fill_(empty, 0)
        fitted = regression.fit(target, prior)
        weights = ((target - threshold.unsqueeze(1)) * head.logit_scale).sigmoid_()
        fitted = regression.refit(target, weights, fitted, _PRIOR_WEIGHT).masked_fill_(empty.unsqueeze(1), 0)
        rest = target - regression.predict(fitted) + excess[:, start : start + step].masked_fill(empty, 0)
        shift = rest.mean(dim=0)
        bias = (fitted[:, width] * regression.unit + shift).masked_fill_(empty, EMPTY)
        rows = fitted[:, :width] if projection is None else fitted[:, :width] @ projection.T
        parts.append((rows, bias, -shift, rest.var(dim=0, correction=0)))
    rows, bias, offset, variance = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    return Centroids(rows, bias, offset, variance, tokens.cpu(), threshold.cpu())


def mean_rows(head: LmHead, members: torch.Tensor, unit: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of the members' rows [K, H] and, divided by ``unit``, of their biases [K, 1]; zero without members."""
    import torch

    count = (members >= 0).sum(dim=1, keepdim=True).clamp(min=1)
    ids = members.clamp(min=0)
    rows = torch.zeros((len(members), head.hidden_size), device=members.device)
    for column, filled in zip(ids.T, (members >= 0).T, strict=True):
        rows += _rows(head, column) * filled.unsqueeze(1)
    bias = torch.zeros((len(members), 1), device=members.device)
    if head.bias is not None:
        biases = torch.from_numpy(head.bias).to(members.device)[ids].masked_fill(members < 0, 0)
        bias = biases.sum(dim=1, keepdim=True) / unit / count
    return rows / count, bias


def _rows(head: LmHead, ids: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.from_numpy(head.rows)[ids.cpu()].to(ids.device)


def _products(head: LmHead, states: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """Products of all members with all states, bias included, [N, K, C]; minus infinity in empty slots."""
    import torch

    ids = members.clamp(min=0).view(-1)
    products = states @ _rows(head, ids).T
    if head.bias is not None:
        products += torch.from_numpy(head.bias).to(ids.device)[ids]
    products = products.view(len(states), *members.shape)
    holes = members < 0
    return products.masked_fill_(holes, -torch.inf) if holes.any() else products


def _log_mean_exp_excess(
    products: torch.Tensor, greatest: torch.Tensor, members: torch.Tensor, scale: float
) -> torch.Tensor:
    """``log(mean(exp(scale * product))) / scale`` less the greatest product, [N, K]; uses the products up."""
    count = (members >= 0).sum(dim=1).clamp(min=1)
    total = products.sub_(greatest.unsqueeze(2)).mul_(scale).exp_().sum(dim=2)
    return (total.log() - count.log()) / scale
