r"""The two-stage head's distribution over the whole vocabulary.

Candidates have exact logits. Of a cluster that stayed closed only the score s is known, which predicts the logarithm of
the mean of its members' ``exp(l_i)``, and offline the variance v of that prediction's error. With errors taken as
normal the mean of ``exp(l_i)`` is ``exp(s + v / 2)``, so a closed cluster k of n_k tokens has the mass
``n_k exp(s_k + v_k / 2)`` and::

    log Z = log(sum over candidates exp(l_i) + sum over closed clusters n_k exp(s_k + v_k / 2))
    log p_i = l_i - log Z                 for a candidate
    log p_i = s_k + v_k / 2 - log Z       for a token of the closed cluster k

These sum to one over the vocabulary by construction. The index holds the variance of dot products; that of logits
follows from the head's last steps: a factor squares, and a soft-cap ``c tanh(x / c)`` has the slope ``1 - (s / c)^2``
at the score, whose square scales the variance (its first-order Taylor expansion).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.index.head_index import HeadIndex

if TYPE_CHECKING:
    from flashhead_edge.runtimes.base import HeadOutput

_Float32 = npt.NDArray[np.float32]


class VocabularyDistribution:
    """Log-probabilities of every token from what a two-stage head says.

    Args:
        index: The head's index.
        logit_scale: Factor on the logits.
        logit_softcap: Soft-cap of the logits, or None.
    """

    def __init__(self, index: HeadIndex, *, logit_scale: float = 1.0, logit_softcap: float | None = None) -> None:
        self._index = index
        self._softcap = logit_softcap
        self._variance: _Float32 = index.cluster_variance * np.float32(logit_scale) ** 2
        self._cluster_of_token = index.slot_of_token // index.cluster_size
        members = (index.token_order[: index.num_clusters] >= 0).sum(axis=1)
        with np.errstate(divide="ignore"):
            #: Clusters whose tokens are all always scored have none left: no mass.
            self._log_members: _Float32 = np.log(members.astype(np.float32))

    def log_partition(self, output: HeadOutput) -> npt.NDArray[np.float64]:
        """Logarithm of the sum of all tokens' ``exp(logit)``, estimated for closed clusters.

        Args:
            output: What the head said of B states.

        Returns:
            log Z, [B] float64.
        """
        return self._log_partition(output, self._member_logits(output))

    def log_probabilities(self, output: HeadOutput) -> _Float32:
        """Natural logarithms of the probabilities of all tokens.

        Args:
            output: What the head said of B states.

        Returns:
            [B, V] float32, every row the logarithm of a distribution.
        """
        closed = self._member_logits(output)
        total = self._log_partition(output, closed)
        # Tokens that are always scored have cluster numbers from K on; their places are filled below.
        logits = np.take(closed, np.minimum(self._cluster_of_token, self._index.num_clusters - 1), axis=1)
        batch, place = np.nonzero(output.candidate_ids >= 0)
        logits[batch, output.candidate_ids[batch, place]] = output.candidate_logits[batch, place]
        logits -= total[:, None].astype(np.float32)
        return logits

    def opened(self, candidate_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which clusters were opened.

        Args:
            candidate_ids: [B, M] int64, -1 for padding.

        Returns:
            [B, K]; a cluster without tokens counts as closed.
        """
        batch, place = np.nonzero(candidate_ids >= 0)
        cluster = self._cluster_of_token[candidate_ids[batch, place]]
        mask = np.zeros((len(candidate_ids), len(self._index.token_order)), dtype=np.bool_)
        mask[batch, cluster] = True
        return mask[:, : self._index.num_clusters]

    def _member_logits(self, output: HeadOutput) -> _Float32:
        """Logit that stands for each member of a closed cluster, -inf for opened clusters, [B, K]."""
        scores, variance = output.cluster_scores, self._variance
        if self._softcap is not None:
            variance = variance * np.square(1 - np.square(scores / np.float32(self._softcap)))
        logits: _Float32 = np.asarray(scores + variance / 2, dtype=np.float32)
        logits[self.opened(output.candidate_ids)] = -np.inf
        return logits

    def _log_partition(self, output: HeadOutput, closed: _Float32) -> npt.NDArray[np.float64]:
        """Sum candidates and closed clusters."""
        mass = np.concatenate([output.candidate_logits, closed + self._log_members], axis=1)
        return log_sum_exp(mass)


def log_sum_exp(logits: _Float32) -> npt.NDArray[np.float64]:
    """``log(sum(exp(logits)))`` of every row, safe from overflow.

    Args:
        logits: [B, N] float32, -inf allowed, at least one finite a row.

    Returns:
        [B] float64.
    """
    highest = logits.max(axis=1, keepdims=True)
    total = np.exp(logits - highest).sum(axis=1, dtype=np.float64)
    return np.asarray(highest[:, 0].astype(np.float64) + np.log(total))
