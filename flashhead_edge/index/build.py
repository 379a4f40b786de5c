"""Rows and calibration states into a head index."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import CalibrationError, OptionError
from flashhead_edge.index.centroids import Centroids, fit_centroids
from flashhead_edge.index.clusters import cluster_rows
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.index.metric import activation_metric
from flashhead_edge.lm_head import LmHead
from flashhead_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    import torch

#: Centroids are fitted to this many calibration states, and to more where the head is small enough for as many
#: multiplications: those of 5120 states of a head of 262,144 x 640.
_LEAST_STATES = 5120
_MULTIPLICATIONS = _LEAST_STATES * 262_144 * 640


@dataclass(frozen=True)
class IndexOptions:
    """How a head is clustered.

    Attributes:
        cluster_size: C; K is then ``ceil(V / C)``.
        num_clusters_override: K where it is set instead; C is then ``ceil(V / K)``.
        always_scored: Slots for always-scored tokens, rounded up to whole clusters, or None for about one in a
            thousand tokens; 0 for none but the ids that must be scored.
        alpha: Tempering of the metric, 0 (plain subspace) to 1 (mean square error of the logits).
        rank: Eigen-directions kept.
        rounds: Two-means rounds at each split.
        centroid_rank: Leading eigen-directions of the states in whose span centroids are fitted, r; None for all H.
        prior_states: Weight of mean rows against states, see :mod:`flashhead_edge.index.centroids`.
        seed: Seed of everything random.
    """

    cluster_size: int = 32
    num_clusters_override: int | None = None
    always_scored: int | None = None
    alpha: float = 0.5
    rank: int = 384
    rounds: int = 6
    centroid_rank: int | None = None
    prior_states: float = 100.0
    seed: int = 0

    def __post_init__(self) -> None:
        lowest = {"alpha": 0, "rank": 1, "always_scored": 0, "rounds": 0, "centroid_rank": 1, "prior_states": 1}
        for name, bound in lowest.items():
            value = getattr(self, name)
            if value is not None and not bound <= value <= (1 if name == "alpha" else float("inf")):
                expected = "0 to 1" if name == "alpha" else f"{bound} or more"
                raise OptionError(f"{name} is out of range.", found=value, expected=expected)

    def always_slots(self, vocab_size: int) -> int:
        """Slots for always-scored tokens: whole clusters."""
        size = -(-vocab_size // self.num_clusters(vocab_size))
        slots = vocab_size // 1000 if self.always_scored is None else self.always_scored
        return -(-slots // size) * size

    def num_clusters(self, vocab_size: int) -> int:
        """K for a vocabulary.

        Raises:
            OptionError: The cluster size or the number of clusters is out of range.
        """
        if self.num_clusters_override is not None:
            if not 2 <= self.num_clusters_override <= vocab_size:
                raise OptionError(
                    "The number of clusters is out of range.",
                    found=self.num_clusters_override,
                    expected=f"2 to {vocab_size} (the vocabulary size)",
                )
            return self.num_clusters_override
        if not 1 <= self.cluster_size <= vocab_size // 2:
            raise OptionError(
                "The cluster size is out of range.",
                found=self.cluster_size,
                expected=f"1 to {vocab_size // 2} (half the vocabulary)",
                hint="32 suits most vocabularies",
            )
        return -(-vocab_size // self.cluster_size)


def build_index(
    head: LmHead,
    states: npt.NDArray[np.float32],
    options: IndexOptions,
    *,
    always: tuple[int, ...] = (),
    num_probes: int,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> HeadIndex:
    """Cluster the rows of a head for the states that it will see.

    Args:
        head: The dense head.
        states: Calibration states, [N, H] float32; a few thousand that cover what the model will write.
        options: How to cluster.
        always: Ids that must be scored at every step (EOS, control tokens); the most missed tokens of the
            calibration states fill what is left of ``options.always_scored``.
        num_probes: P that the centroids are fitted for and misses are counted at.
        device: torch device for the clustering, "cpu" or "cuda".
        progress: Told of every stage.

    Returns:
        The index. The same rows, states, options and seed give the same index.

    Raises:
        OptionError: An option is out of range.
        CalibrationError: The states do not fit the head.
    """
    import torch

    _check_states(head, states)
    _check_ids(head, always)
    num_clusters = options.num_clusters(head.vocab_size)
    if not 1 <= num_probes <= num_clusters:
        raise OptionError(
            "The number of probes is out of range.", found=num_probes, expected=f"1 to {num_clusters} (the clusters)"
        )
    calibration = torch.from_numpy(states)
    metric = activation_metric(calibration.to(device), max(options.rank, options.centroid_rank or 0))
    projection = None
    if options.centroid_rank is not None and options.centroid_rank < head.hidden_size:
        projection = metric.directions[:, : options.centroid_rank].contiguous()
    members = cluster_rows(
        head,
        metric.leading(options.rank),
        num_clusters,
        alpha=options.alpha,
        rounds=options.rounds,
        seed=options.seed,
        device=device,
        progress=progress,
    )
    sample = _sample(calibration, most_states(head.vocab_size, head.hidden_size), options.seed)
    fit = partial(
        fit_centroids,
        head,
        sample,
        num_probes=num_probes,
        prior_states=options.prior_states,
        projection=projection,
        device=device,
    )
    centroids = fit(members, progress=progress)
    missed = _missed_tokens(head, sample, members, centroids, num_probes)
    order = _with_always_scored(members, always, missed, options.always_slots(head.vocab_size))
    changed = (order[:num_clusters] != members).any(dim=1)
    if changed.any():
        left = fit(order[:num_clusters][changed], threshold=centroids.threshold)
        for name in ("rows", "bias", "selection_offset", "variance"):
            getattr(centroids, name)[changed] = getattr(left, name)
    return HeadIndex(
        token_order=order.numpy().astype(np.int32),
        centroids=centroids.rows.numpy(),
        centroid_bias=centroids.bias.numpy(),
        selection_offset=centroids.selection_offset.numpy(),
        cluster_variance=centroids.variance.numpy(),
        vocab_size=head.vocab_size,
        projection=None if projection is None else projection.cpu().numpy(),
    )


def most_states(vocab_size: int, hidden_size: int) -> int:
    """Calibration states that centroids are fitted to at most; each is scored with all V rows of H."""
    return max(_LEAST_STATES, _MULTIPLICATIONS // (vocab_size * hidden_size))


def _check_states(head: LmHead, states: npt.NDArray[np.float32]) -> None:
    if states.ndim != 2 or states.shape[1] != head.hidden_size or not len(states):
        raise CalibrationError(
            "The calibration states do not fit the head.",
            found=f"states of shape {list(states.shape)}",
            expected=f"[N, {head.hidden_size}] with N of about 2000 or more",
        )
    if not np.isfinite(states).all():
        raise CalibrationError(
            "The calibration states hold NaN or infinity.",
            found=f"{int((~np.isfinite(states).all(axis=1)).sum())} of {len(states)} states",
            hint="the model overflows on this text; check that it generates text at all",
        )
    if not states.any():
        raise CalibrationError("The calibration states are all zero.", expected="outputs of the model's final norm")


def _check_ids(head: LmHead, ids: tuple[int, ...]) -> None:
    wrong = [token for token in ids if not 0 <= token < head.vocab_size]
    if wrong:
        raise OptionError(
            "Tokens that are always scored must be in the vocabulary.",
            found=", ".join(map(str, wrong)),
            expected=f"ids from 0 to {head.vocab_size - 1}",
        )


def cluster_ranks(
    states: torch.Tensor,
    tokens: torch.Tensor,
    token_cluster: torch.Tensor,
    centroids: torch.Tensor,
    offset: torch.Tensor,
    *,
    batch: int = 512,
) -> torch.Tensor:
    """How many clusters score above each state's token's own cluster; contained at P when smaller than P.

    Args:
        states: [N, H] float32.
        tokens: Dense argmax of each state, [N] int64.
        token_cluster: Cluster of every token, [V] int64, -1 for always-scored tokens, whose rank is 0.
        centroids: [K, H] float32.
        offset: Added to the scores, [K] float32.
        batch: States scored at a time.

    Returns:
        [N] int64.
    """
    import torch

    ranks = []
    for start in range(0, len(states), batch):
        scores = states[start : start + batch] @ centroids.T + offset
        clusters = token_cluster[tokens[start : start + batch]]
        own = scores.gather(1, clusters.clamp(min=0).unsqueeze(1))
        ranks.append((scores > own).sum(dim=1).masked_fill(clusters < 0, 0))
    return torch.cat(ranks)


def _sample(states: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """``count`` of the states, or all where there are fewer."""
    import torch

    if len(states) <= count:
        return states
    return states[torch.randperm(len(states), generator=torch.Generator().manual_seed(seed))[:count]]


def _missed_tokens(
    head: LmHead, states: torch.Tensor, members: torch.Tensor, centroids: Centroids, num_probes: int
) -> list[int]:
    """Tokens that the calibration states chose, those whose clusters rank worst most often first."""
    import torch

    cluster = torch.empty(head.vocab_size, dtype=torch.int64)
    filled = members >= 0
    cluster[members[filled]] = torch.arange(len(members)).unsqueeze(1).expand_as(members)[filled]
    ranks = cluster_ranks(
        states, centroids.tokens, cluster, centroids.rows, centroids.bias + centroids.selection_offset
    )
    # A hit that was close counts too: 1 at the last opened rank, falling with the distance from it.
    weight = torch.where(ranks >= num_probes, 2.0, ranks.float() / num_probes)
    score = torch.zeros(head.vocab_size).index_add_(0, centroids.tokens, weight)
    ordered = score.argsort(descending=True, stable=True)
    return [int(token) for token in ordered[: int((score > 0).sum())]]


def _with_always_scored(members: torch.Tensor, always: tuple[int, ...], missed: list[int], slots: int) -> torch.Tensor:
    """Move always-scored tokens from their clusters, where they leave holes, to clusters of their own at the end."""
    import torch

    size = members.shape[1]
    clusters = -(-max(slots, len(always)) // size)
    ids = list(dict.fromkeys([*always, *missed]))[: clusters * size]
    clusters = -(-len(ids) // size)
    extra = torch.full((clusters * size,), -1, dtype=torch.int64)
    extra[: len(ids)] = torch.tensor(sorted(ids), dtype=torch.int64)
    kept = members.masked_fill(torch.isin(members, extra[: len(ids)]), -1)
    return torch.cat([kept, extra.view(clusters, size)])
