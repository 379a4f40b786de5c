"""Choosing the next token among the candidates of a step: greedy, or drawn at a temperature.

Probabilities are over the candidates, not over the whole vocabulary: they sum to one over the tokens that stage 2
scored, so they are a little higher than those of a dense head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import BundleError, OptionError

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SamplingOptions:
    """How to choose a token; names, meanings and order of the filters are those of transformers.

    Attributes:
        temperature: Divides the logits; 0 chooses the highest logit always (greedy).
        top_k: Keep the k highest logits, and those equal to the k-th; 0 keeps all.
        top_p: Keep the fewest tokens, the likeliest first, whose probabilities reach this; 1 keeps all.
        min_p: Keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
        seed: Makes the draws repeatable; None draws differently every time.

    Raises:
        OptionError: A value is out of range, or filters are set for greedy decoding, which ignores them.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        checks = (
            ("temperature", self.temperature, 0.0 <= self.temperature < math.inf, "a finite number of 0 or more"),
            ("top_k", self.top_k, self.top_k >= 0, "0 (off) or a positive number of tokens"),
            ("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "more than 0, at most 1 (off)"),
            ("min_p", self.min_p, 0.0 <= self.min_p <= 1.0, "from 0 (off) to 1"),
            ("seed", self.seed, self.seed is None or self.seed >= 0, "0 or more"),
        )
        for name, value, is_right, expected in checks:
            if not is_right:
                raise OptionError(f"The sampling option {name} is out of range.", found=value, expected=expected)
        if self.is_greedy and (self.top_k, self.top_p, self.min_p) != (0, 1.0, 0.0):
            raise OptionError(
                "Greedy decoding ignores top_k, top_p and min_p.",
                found=f"top_k {self.top_k}, top_p {self.top_p}, min_p {self.min_p} at temperature 0",
                hint="set a temperature above 0 (1.0 is the model's own distribution), or leave them out",
            )

    @property
    def is_greedy(self) -> bool:
        """Whether the highest logit always wins."""
        return self.temperature == 0.0


class Sampler:
    """Draws tokens one after the other.

    A draw walks down the tokens from the likeliest (ties: lowest id first), so it does not depend on the order in
    which clusters were opened, and the same seed gives two-stage and dense heads the same draws.

    Args:
        options: How to choose.
    """

    def __init__(self, options: SamplingOptions) -> None:
        self._options = options
        self._random = np.random.default_rng(options.seed)

    def choose(self, candidate_ids: npt.NDArray[np.int64], candidate_logits: npt.NDArray[np.float32]) -> int:
        """Choose one candidate.

        Args:
            candidate_ids: Distinct token ids, [M] int64; padding has any id.
            candidate_logits: Their logits, [M] float32, -inf for padding.

        Returns:
            The chosen token id.

        Raises:
            BundleError: The logits hold NaN or +inf, or nothing but padding.
        """
        _check(candidate_logits)
        if self._options.is_greedy:
            return int(candidate_ids[candidate_logits == candidate_logits.max()].min())
        ids, probabilities = self._distribution(candidate_ids, candidate_logits)
        cumulative = np.cumsum(probabilities)
        place = int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))
        return int(ids[min(place, len(ids) - 1)])

    def _distribution(
        self, candidate_ids: npt.NDArray[np.int64], candidate_logits: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int64], _Float64]:
        """Apply temperature and filters: ids and probabilities, likeliest first, both [<= M]."""
        options = self._options
        logits = candidate_logits.astype(np.float64)
        keep = logits > -np.inf
        if 0 < options.top_k < np.count_nonzero(keep):
            keep &= logits >= np.partition(logits, -options.top_k)[-options.top_k]
        ids, logits = candidate_ids[keep], logits[keep]
        order = np.lexsort((ids, -logits))
        # The largest is subtracted before dividing: a tiny temperature must not overflow.
        probabilities = _normalise(np.exp((logits[order] - logits.max()) / options.temperature))
        if options.top_p < 1.0:
            before = np.cumsum(probabilities) - probabilities
            count = max(1, int(np.count_nonzero(before < options.top_p)))
            probabilities = _normalise(probabilities[:count])
        if options.min_p > 0.0:
            count = max(1, int(np.count_nonzero(probabilities >= options.min_p * probabilities[0])))
            probabilities = _normalise(probabilities[:count])
        return ids[order[: len(probabilities)]], probabilities


def logprob(token_id: int, candidate_ids: npt.NDArray[np.int64], candidate_logits: npt.NDArray[np.float32]) -> float:
    """Natural log-probability of a candidate under the model, before temperature and filters.

    Args:
        token_id: One of the candidates.
        candidate_ids: Distinct token ids, [M] int64.
        candidate_logits: Their logits, [M] float32, -inf for padding.

    Returns:
        Log of the probability over the candidates, at most 0.

    Raises:
        BundleError: The logits are not numbers.
    """
    _check(candidate_logits)
    logits = candidate_logits.astype(np.float64)
    highest = logits.max()
    # Padding may repeat an id; its -inf loses to the candidate itself.
    own = logits[candidate_ids == token_id].max()
    return min(0.0, float(own - highest - np.log(np.exp(logits - highest).sum())))


def _normalise(weights: _Float64) -> _Float64:
    """Scale weights to a sum of one."""
    return np.asarray(weights / weights.sum())


def _check(logits: npt.NDArray[np.float32]) -> None:
    """Refuse logits with which no choice makes sense."""
    highest = logits.max(initial=-np.inf)
    if not np.isfinite(highest):  # the maximum of numbers and NaN is NaN
        raise BundleError(
            "The model's logits are not finite.",
            found="no candidate at all" if highest == -np.inf else f"a highest logit of {highest}",
            expected="finite logits",
            hint="the bundle's weights are damaged or overflow: export it again, if need be with --body-precision fp32",
        )
