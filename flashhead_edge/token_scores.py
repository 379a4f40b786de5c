"""What a step knows of the next token, and drawing from it.

A step knows some tokens' exact logits, and of the others only the estimated masses of their clusters. Logit processors
ask for exact logits of the tokens that they name, change them, forbid tokens, or leave some only. The mathematics, and
what distribution a draw has, are in :mod:`flashhead_edge.index.distribution`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.index.distribution import ENVELOPE, VocabularyDistribution

if TYPE_CHECKING:
    from flashhead_edge.exact_rows import ExactRows
    from flashhead_edge.runtimes.base import HeadOutput

_Int64 = npt.NDArray[np.int64]
_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]

#: Tokens scored at a time where some may be the best.
_FIRST_SCORED = 1024

#: Deviations of a cluster's predicted greatest logit that may hide the best token. Errors have long tails: of the best
#: allowed tokens that stage 1 misses, few lie within 6 and most within 12, and more would score much of the vocabulary.
_DEVIATIONS = 12.0


class WholeVocabulary:
    """What turns a head's output into scores that reach every token: statistics of clusters, and their rows.

    Args:
        rows: The head's rows.
        distribution: Masses of closed clusters.
    """

    def __init__(self, rows: ExactRows, distribution: VocabularyDistribution) -> None:
        self.rows = rows
        self.distribution = distribution
        self.cluster_of_token = rows.index.slot_of_token // rows.index.cluster_size
        self.cluster_members = (rows.index.token_order >= 0).sum(axis=1)
        self.selection_offset = distribution.selection_offset
        self.deviation = np.sqrt(rows.index.cluster_variance) * np.float32(distribution.logit_scale)


class TokenScores:
    """Scores of one position's next token.

    Args:
        output: What the head said; every id stands in it once.
        hidden_state: The state that the head saw, [H] float32.
        row: Row of the output.
        vocabulary: For the tokens that are no candidates; None where all tokens are (a dense head).

    Attributes:
        ids: Tokens with exact logits, without padding, [N] int64.
        logits: Their logits as processors left them, -inf for forbidden ones, [N] float32.
    """

    def __init__(
        self, output: HeadOutput, hidden_state: _Float32, row: int = 0, *, vocabulary: WholeVocabulary | None = None
    ) -> None:
        self._output = output.row(row)
        self._hidden_state = hidden_state
        self._vocabulary = vocabulary
        ids = self._output.candidate_ids[0]
        real = ids >= 0
        self.ids: _Int64 = ids[real]
        self.logits: _Float32 = self._output.candidate_logits[0][real]
        self._has_rest = vocabulary is not None
        self._closed: dict[float, _Float64] = {}
        self._opened_later: list[int] = []
        self._place: npt.NDArray[np.int32] | None = None
        self._mask: npt.NDArray[np.bool_] | None = None
        self._candidates = len(self.ids)

    @property
    def has_rest(self) -> bool:
        """Whether tokens without exact logits can still come."""
        return self._has_rest

    def include(self, token_ids: _Int64) -> None:
        """Score tokens exactly.

        Args:
            token_ids: Distinct ids, [n] int64; those that have exact logits already keep them.
        """
        if self._vocabulary is None or not self._has_rest:
            return
        missing = token_ids[~self.contains(token_ids)]
        if len(missing):
            self._add(missing, self._vocabulary.rows.token_logits(self._hidden_state, missing))

    def open_clusters(self, clusters: _Int64) -> None:
        """Score all tokens of some closed clusters exactly.

        Args:
            clusters: Numbers of clusters, [n] int64.
        """
        if self._vocabulary is None or not self._has_rest or not len(clusters):
            return
        ids, logits = self._vocabulary.rows.cluster_logits(self._hidden_state, clusters)
        new = ~self.contains(ids)
        self._add(ids[new], logits[new])
        self._opened_later.extend(clusters.tolist())

    @property
    def num_clusters(self) -> int:
        """K, or 0 where every token has been scored."""
        return 0 if self._vocabulary is None else self._vocabulary.rows.index.num_clusters

    @property
    def cluster_size(self) -> int:
        """C, or 0 where every token has been scored."""
        return 0 if self._vocabulary is None else self._vocabulary.rows.index.cluster_size

    def closed_clusters(self) -> _Int64:
        """Clusters that have not been opened, ascending, [<= K] int64."""
        if self._vocabulary is None or not self._has_rest:
            return np.empty(0, np.int64)
        closed = np.ones(self.num_clusters, dtype=np.bool_)
        opened = self._vocabulary.cluster_of_token[self.ids[: self._candidates]]
        closed[opened[opened < self.num_clusters]] = False
        closed[self._opened_later] = False
        return np.flatnonzero(closed)

    def open_next(self, count: int) -> None:
        """Open the clusters that stage 1 would have chosen next.

        Args:
            count: How many more.
        """
        closed = self.closed_clusters()
        if self._vocabulary is None or not len(closed):
            return
        scores = self._output.cluster_scores[0][closed] + self._vocabulary.selection_offset[closed]
        self.open_clusters(closed[np.argsort(-scores, kind="stable")[:count]])

    def greatest_in(self, clusters: _Int64) -> float:
        """Greatest exact logit in some clusters, -inf for none; nothing is added to the scores.

        Args:
            clusters: Numbers of clusters, [n] int64.
        """
        if self._vocabulary is None or not len(clusters):
            return -np.inf
        _, logits = self._vocabulary.rows.cluster_logits(self._hidden_state, clusters)
        return float(logits.max(initial=-np.inf))

    def places(self, token_ids: _Int64) -> _Int64:
        """Where tokens stand in :attr:`ids`, scoring those that do not stand there yet.

        Args:
            token_ids: Distinct ids, [n] int64.

        Returns:
            [n] int64.
        """
        self.include(token_ids)
        return self._places()[token_ids].astype(np.int64)

    def contains(self, token_ids: _Int64) -> npt.NDArray[np.bool_]:
        """Whether tokens have exact logits, [n] bool.

        Args:
            token_ids: Any ids of the vocabulary, [n] int64.
        """
        place = self._places()
        known = token_ids < len(place)
        return np.asarray(known & (place[np.where(known, token_ids, 0)] >= 0))

    def restrict(self, token_ids: _Int64) -> None:
        """Leave these tokens only, as far as they can still come; all of them are scored exactly.

        Args:
            token_ids: Distinct ids, [n] int64.
        """
        if not self._has_rest:
            token_ids = token_ids[self.contains(token_ids)]
        places = self.places(token_ids)
        self.ids, self.logits = self.ids[places], self.logits[places]
        self._place = None
        self._has_rest = False

    def mask(self, allowed: npt.NDArray[np.bool_]) -> None:
        """Forbid tokens, also those that have not been scored.

        A mask is as wide as the vocabulary, and so is the work: what closed clusters have left must be counted.

        Args:
            allowed: Whether each token may come, [V] bool.
        """
        self.logits[~allowed[self.ids]] = -np.inf
        self._mask = allowed
        self._closed.clear()

    def score_all(self) -> None:
        """Score every token that may come, and leave those only."""
        if self._vocabulary is not None and self._has_rest:
            rows = self._vocabulary.rows
            order = rows.index.token_order.ravel()
            wanted = np.zeros(len(order), dtype=np.bool_)  # in the order of the table, which is read fastest
            wanted[rows.index.slot_of_token[self._unscored()]] = True
            slots = np.flatnonzero(wanted)
            self._add(order[slots].astype(np.int64), rows.slot_logits(self._hidden_state, slots))
        if self._mask is not None:
            allowed = self._mask[self.ids]
            self.ids, self.logits = self.ids[allowed], self.logits[allowed]
        self._place = None
        self._has_rest = False

    def score_promising(self) -> int:
        """Score allowed tokens until no other could have the greatest logit, and say how many were scored.

        A token could if its cluster's predicted greatest logit and :data:`_DEVIATIONS` of that prediction's error reach
        the best token that may come. The most promising are scored first, so that a better best may spare the rest.
        """
        if self._vocabulary is None or not self._has_rest:
            return 0
        tokens = np.flatnonzero(self._unscored())
        promise = self._output.cluster_scores[0] + self._vocabulary.selection_offset
        promise = (promise + _DEVIATIONS * self._vocabulary.deviation)[self._vocabulary.cluster_of_token[tokens]]
        promising = np.flatnonzero(promise >= self.logits.max(initial=-np.inf))
        order = promising[np.argsort(-promise[promising], kind="stable")]
        tokens, promise = tokens[order], promise[order]
        scored, step = 0, _FIRST_SCORED
        while scored < len(tokens) and promise[scored] >= self.logits.max():
            self.include(tokens[scored : scored + step])
            scored = min(scored + step, len(tokens))
            step *= 2
        return scored

    def drop_rest(self) -> None:
        """Leave the tokens with exact logits only."""
        self._has_rest = False

    def closed_log_masses(self, temperature: float = 1.0) -> _Float64:
        """Estimated ``log(sum(exp(logit / temperature)))`` of closed clusters.

        Returns:
            [K] float64, -inf for those that were opened; [0] where no other token can come.
        """
        if self._vocabulary is None or not self._has_rest:
            return np.empty(0)
        known = self._closed.get(temperature)
        if known is None:
            known = self._vocabulary.distribution.closed_log_masses(self._output, temperature)[0]
            members = self._vocabulary.cluster_members[: len(known)]
            cluster = self._vocabulary.cluster_of_token[self.ids[self._candidates :]]
            left = members - np.bincount(cluster, minlength=len(known))[: len(known)]
            if self._mask is not None:
                allowed = self._vocabulary.cluster_of_token[self._unscored()]
                left = np.bincount(allowed, minlength=len(known))[: len(known)]
            with np.errstate(divide="ignore", invalid="ignore"):  # an empty cluster has no mass to share
                known += np.where(left == members, 0.0, np.log(left / members))
            known[self._opened_later] = -np.inf
            self._closed[temperature] = known
        return known

    def log_partition(self, temperature: float = 1.0) -> float:
        """``log(sum(exp(logit / temperature)))`` over every token that can come, estimated for closed clusters."""
        parts = np.concatenate([self.logits / np.float64(temperature), self.closed_log_masses(temperature)])
        highest = parts.max(initial=-np.inf)
        if highest == -np.inf:
            return -np.inf
        return float(highest + np.log(np.exp(parts - highest).sum()))

    def logprobs(self, token_ids: _Int64) -> _Float64:
        """Natural log-probabilities of tokens, [n] float64, at most 0; their clusters are scored exactly first.

        Args:
            token_ids: Distinct ids, [n] int64.
        """
        missing = token_ids[~self.contains(token_ids)]
        if len(missing) and self._vocabulary is not None:
            self.open_clusters(np.unique(self._vocabulary.cluster_of_token[missing]).astype(np.int64))
        logits = self.logits[self.places(token_ids)].astype(np.float64)
        return np.minimum(logits - self.log_partition(), 0.0)

    def likeliest(self, count: int) -> tuple[tuple[int, float], ...]:
        """The tokens with the greatest exact logits and their natural log-probabilities, likeliest first.

        Args:
            count: How many at most.
        """
        total = self.log_partition()
        order = np.lexsort((self.ids, -self.logits))[:count]
        return tuple((int(self.ids[i]), min(0.0, float(self.logits[i]) - total)) for i in order)

    def draw(self, random: np.random.Generator, temperature: float = 1.0) -> int:
        """Draw a token; :mod:`flashhead_edge.index.distribution` says with what probability.

        Exact tokens are walked from the likeliest, ties from the lowest id, so a draw does not depend on the order in
        which clusters were opened, and one seed gives two-stage and dense heads the same draws as long as none falls
        on a closed cluster.
        """
        return self.draws(temperature)(random)

    def draws(self, temperature: float = 1.0) -> Callable[[np.random.Generator], int]:
        """What :meth:`draw` does, for many draws from scores that no longer change."""
        # Divided after the largest is subtracted: a tiny temperature must not overflow.
        order = np.lexsort((self.ids, -self.logits))
        highest = float(self.logits[order[0]])
        exact = np.cumsum(np.exp((self.logits[order].astype(np.float64) - highest) / temperature))
        with np.errstate(over="ignore"):
            envelope = ENVELOPE * np.exp(self.closed_log_masses(temperature) - highest / temperature)
        closed = np.cumsum(envelope)
        rest = float(closed[-1]) if len(closed) else 0.0

        def draw(random: np.random.Generator) -> int:
            while True:
                point = random.random() * (exact[-1] + rest)
                if point < exact[-1]:
                    return int(self.ids[order[min(int(np.searchsorted(exact, point, side="right")), len(order) - 1)]])
                cluster = int(np.searchsorted(closed, point - exact[-1], side="right"))
                if cluster < len(closed):
                    token = self._draw_member(random, temperature, cluster, highest, float(envelope[cluster]))
                    if token is not None:
                        return token

        return draw

    def _draw_member(
        self, random: np.random.Generator, temperature: float, cluster: int, highest: float, envelope: float
    ) -> int | None:
        """Draw in a closed cluster, or None where its estimate was too high this time."""
        assert self._vocabulary is not None
        ids, logits = self._vocabulary.rows.cluster_logits(self._hidden_state, np.array([cluster]))
        other = ~self.contains(ids)
        if self._mask is not None:
            other &= self._mask[ids]
        mass = np.cumsum(np.exp((logits[other].astype(np.float64) - highest) / temperature))
        if not len(mass):
            return None
        if random.random() * envelope >= mass[-1]:
            return None
        place = int(np.searchsorted(mass, random.random() * mass[-1], side="right"))
        return int(ids[other][min(place, len(mass) - 1)])

    def _unscored(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come and have no exact logit, [V] bool."""
        unscored = self._places() < 0
        return unscored if self._mask is None else unscored & self._mask

    def _places(self) -> npt.NDArray[np.int32]:
        """Place of every token in :attr:`ids`, -1 for those that are not there: a table is quicker than searching."""
        if self._place is None:
            size = int(self.ids.max(initial=0)) + 1
            if self._vocabulary is not None:
                size = self._vocabulary.rows.index.vocab_size
            self._place = np.full(size, -1, dtype=np.int32)
            self._place[self.ids] = np.arange(len(self.ids), dtype=np.int32)
        return self._place

    def _add(self, ids: _Int64, logits: _Float32) -> None:
        """Append tokens with exact logits."""
        if self._mask is not None:
            logits = np.where(self._mask[ids], logits, np.float32(-np.inf))
        if self._place is not None:
            self._place[ids] = np.arange(len(self.ids), len(self.ids) + len(ids))
        self.ids = np.concatenate([self.ids, ids])
        self.logits = np.concatenate([self.logits, logits])
        self._closed.clear()
