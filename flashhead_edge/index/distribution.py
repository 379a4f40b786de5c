r"""The two-stage head's distribution over the whole vocabulary, at any temperature.

Candidates have exact logits. Of a cluster that stayed closed only the score s is known. With beta = 1 / T its mass is
``M(beta) = sum_i exp(beta l_i)`` over its n members, and two things are known of it from calibration: at beta = 1 its
logarithm is ``s + log n`` on average over states (so was the centroid's bias chosen), and the greatest member's logit
is ``s + o`` on average (o is the index's selection offset). In between, and beyond::

    log M(beta) = beta (s + o) + log(n) (1 - o / log n)^beta

is the form that has both values: the second term falls from log n at beta = 0, where all members weigh the same, to 0
at infinity, where the greatest one has everything, and is ``log n - o`` at beta = 1.

Scores can be wrong for a whole state at once, above all where a text is unlike those of calibration. The clusters that
were opened show by how much, since their masses are known: those in the lower half of the opened ones, by score, are
nearest to the closed ones, and were chosen by the same scores. The ratio of their masses to their estimates is that of
the closed ones, up to noise; its square root, half way between the state's ratio and none, is applied.

So ``Z = sum over candidates exp(beta l_i) + sum over closed clusters M_k(beta)``, and a token that has been scored
exactly, whether it was a candidate or not, has the probability ``exp(beta l_i) / Z``.

Tokens are drawn by rejection (von Neumann, 1951), so that estimates decide how long a draw takes and hardly what comes
of it. Choose the candidates or a closed cluster in proportion to their mass A and to ``c M_k`` with an envelope c above
1; score the chosen cluster exactly and keep it with probability ``min(1, M_k* / (c M_k))``, M_k* being its true mass,
else choose again; then draw among its members. Token i then comes with a probability proportional to::

    exp(beta l_i)                            for a candidate
    exp(beta l_i) min(1, c M_k / M_k*)       in the closed cluster k

which is the dense softmax but for clusters that have more than c times their estimate. Finding them less likely than
they are, as long as they stay closed, is the price. A draw scores ``c sum(M_k) / A`` clusters or fewer on average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.index.head_index import HeadIndex

if TYPE_CHECKING:
    from flashhead_edge.runtimes.base import HeadOutput

_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]

#: How many times its estimate a cluster may weigh before draws from it become too rare; c above.
ENVELOPE = 32.0
#: Share of the candidates' mass added to both sides of a state's ratio, so that clusters without any say little.
_RATIO_PRIOR = 1e-4


class VocabularyDistribution:
    """Masses of closed clusters, and with them the normaliser, from what a two-stage head says.

    Args:
        index: The head's index.
        logit_scale: Factor on the logits.
        logit_softcap: Soft-cap of the logits, or None.
    """

    def __init__(self, index: HeadIndex, *, logit_scale: float = 1.0, logit_softcap: float | None = None) -> None:
        self._softcap = logit_softcap
        self.logit_scale = logit_scale
        self._order = index.token_order[: index.num_clusters]
        self._clusters = index.num_clusters
        self._places = len(index.token_order)
        self._cluster_of_token = index.slot_of_token // index.cluster_size
        members = (index.token_order[: index.num_clusters] >= 0).sum(axis=1)
        with np.errstate(divide="ignore"):
            #: Clusters whose tokens are all always scored have none left: no mass.
            self._log_members: _Float32 = np.log(members.astype(np.float32))
        #: In logits: added to scores when clusters are chosen, [K].
        self.selection_offset: _Float32 = (index.selection_offset * np.float32(logit_scale)).astype(np.float32)

    def closed_log_masses(self, output: HeadOutput, temperature: float = 1.0) -> _Float64:
        """Estimated ``log(sum(exp(logit / temperature)))`` over the members of every closed cluster.

        Args:
            output: What the head said of B states.
            temperature: T, above 0.

        Returns:
            [B, K] float64, -inf for clusters that were opened or have no tokens.
        """
        masses = self._predicted_log_masses(output.cluster_scores, 1 / temperature)
        for row, (ids, logits) in enumerate(zip(output.candidate_ids, output.candidate_logits, strict=True)):
            real = ids >= 0
            cluster = self._cluster_of_token[ids[real]]
            opened = np.bincount(cluster, minlength=self._places)[: self._clusters] > 0
            masses[row] += self._log_ratio(
                masses[row], output.cluster_scores[row], opened, cluster, logits[real] / temperature
            )
            masses[row, opened] = -np.inf
        return masses

    def log_partition(self, output: HeadOutput, temperature: float = 1.0) -> _Float64:
        """``log(sum(exp(logit / temperature)))`` over all tokens, estimated for closed clusters.

        Args:
            output: What the head said of B states.
            temperature: T, above 0.

        Returns:
            log Z, [B] float64.
        """
        closed = self.closed_log_masses(output, temperature)
        return log_sum_exp(np.concatenate([output.candidate_logits / np.float64(temperature), closed], axis=1))

    def log_partition_beside(
        self, output: HeadOutput, dense_logits: _Float32, token_ids: npt.NDArray[np.int64]
    ) -> _Float64:
        """The same, with the cluster of one token scored exactly: what the token's log-probability is taken from.

        Args:
            output: What the head said of B states.
            dense_logits: Logits of all tokens, [B, V] float32.
            token_ids: A token of each state, [B] int64.

        Returns:
            log Z, [B] float64.
        """
        closed = self.closed_log_masses(output)
        for row, cluster in enumerate(self._cluster_of_token[token_ids]):
            if cluster < self._clusters and closed[row, cluster] > -np.inf:
                members = self._order[cluster]
                closed[row, cluster] = log_sum_exp(dense_logits[row, members[members >= 0]][None])[0]
        return log_sum_exp(np.concatenate([output.candidate_logits, closed], axis=1))

    def drawn_log_probabilities(self, dense_logits: _Float32, output: HeadOutput, temperature: float = 1.0) -> _Float64:
        """Log-probabilities with which tokens are drawn, for a measurement: it needs what the head saves.

        Args:
            dense_logits: Logits of all tokens, [B, V] float32.
            output: What the head said of the same states.
            temperature: T, above 0.

        Returns:
            [B, V] float64, every row the logarithm of a distribution.
        """
        logits = dense_logits / np.float64(temperature)
        batch, place = np.nonzero(output.candidate_ids >= 0)
        logits[batch, output.candidate_ids[batch, place]] = output.candidate_logits[batch, place] / temperature
        members = np.where(self._order < 0, -np.inf, logits[:, np.maximum(self._order, 0)])  # [B, K, C]
        with np.errstate(invalid="ignore", divide="ignore"):
            highest = members.max(axis=2)
            true = highest + np.log(np.exp(members - highest[:, :, None]).sum(axis=2))
            damping = np.minimum(0.0, np.log(ENVELOPE) + self.closed_log_masses(output, temperature) - true)
        damping[np.isnan(damping)] = 0.0
        for row, ids in enumerate(output.candidate_ids):
            cluster = self._cluster_of_token[ids[ids >= 0]]
            damping[row, cluster[cluster < self._clusters]] = 0.0
        damping = np.concatenate([damping, np.zeros((len(damping), self._places - self._clusters))], axis=1)
        logits += damping[:, self._cluster_of_token]
        return np.asarray(logits - log_sum_exp(logits)[:, None])

    def _predicted_log_masses(self, scores: _Float32, beta: float) -> _Float64:
        """What calibration says of clusters with these scores, [B, K]."""
        offset = self.selection_offset
        if self._softcap is not None:  # the slope of the soft-cap at the score
            offset = offset * (1 - np.square(scores / np.float32(self._softcap)))
        with np.errstate(divide="ignore", invalid="ignore"):
            rest = np.where(self._log_members > 0, np.clip(1 - offset / self._log_members, 0, 1), 0)
        masses = beta * (scores.astype(np.float64) + offset) + np.maximum(self._log_members, 0) * rest**beta
        return np.asarray(np.where(np.isneginf(self._log_members), -np.inf, masses))

    def _log_ratio(
        self,
        masses: _Float64,
        scores: _Float32,
        opened: npt.NDArray[np.bool_],
        cluster: npt.NDArray[np.int32],
        logits: _Float32,
    ) -> float:
        """Half the logarithm of opened clusters' mass against its estimate, over the lower half of them by score.

        Args:
            masses: Predicted log masses, [K].
            scores: Scores of the clusters, [K].
            opened: Which clusters were opened, [K].
            cluster: Cluster of every candidate, [M].
            logits: Logits of the candidates, divided by the temperature, [M].
        """
        chosen = np.flatnonzero(opened)
        if len(chosen) < 2:
            return 0.0
        lower = chosen[scores[chosen] <= np.median(scores[chosen])]
        highest = float(logits.max())
        known = np.bincount(cluster, np.exp(logits - highest, dtype=np.float64), minlength=self._places)
        prior = _RATIO_PRIOR * float(known.sum())
        estimated = float(np.exp(masses[lower] - highest).sum())
        return 0.5 * float(np.log((known[lower].sum() + prior) / (estimated + prior)))


def log_sum_exp(logits: npt.NDArray[np.floating]) -> _Float64:
    """``log(sum(exp(logits)))`` of every row, safe from overflow.

    Args:
        logits: [B, N], -inf allowed, at least one finite a row.

    Returns:
        [B] float64.
    """
    highest = logits.max(axis=1, keepdims=True)
    total = np.exp(logits - highest).sum(axis=1, dtype=np.float64)
    return np.asarray(highest[:, 0].astype(np.float64) + np.log(total))
