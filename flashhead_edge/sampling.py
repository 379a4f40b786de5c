"""Choosing the next token: greedy among the exact scores, or drawn at a temperature from the whole vocabulary.

Filters keep a few likely tokens, so they choose among tokens with exact scores. The mass that a nucleus (top-p) is
measured against is that of the whole vocabulary; where the exact tokens have too little of it, closed clusters are
scored exactly too, the heaviest first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import BundleError, OptionError
from flashhead_edge.processors import LogitProcessor, logit_processors

if TYPE_CHECKING:
    from flashhead_edge.token_scores import TokenScores

_Float64 = npt.NDArray[np.float64]

#: Closed clusters scored at a time where a nucleus needs more; twice as many each time after.
_FIRST_OPENED = 64


@dataclass(frozen=True)
class SamplingOptions:
    """How to choose a token; names, meanings and order of the filters are those of transformers.

    Attributes:
        temperature: Divides the logits; 0 chooses the highest logit always (greedy).
        top_k: Keep the k highest logits, and those equal to the k-th; 0 keeps all.
        top_p: Keep the fewest tokens, the likeliest first, whose probabilities reach this; 1 keeps all.
        min_p: Keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
        seed: Makes the draws repeatable; None draws differently every time.
        typical_p: Keep the fewest tokens, those of the most expected surprise first, whose probabilities reach this
            (Meister et al., Locally Typical Sampling, 2022); 1 keeps all.
        repetition_penalty: Divides positive logits of tokens in prompt and text, multiplies negative ones; 1 is off.
        presence_penalty: Subtracted from the logits of tokens that have been generated.
        frequency_penalty: The same, for each time.
        logit_bias: Added to the logits of these ids.
        allowed_ids: The only tokens that may come; None allows all.
        bad_words: Sequences of ids that may not come.
        min_tokens: Tokens before one that ends the text may come.

    Raises:
        OptionError: A value is out of range, or filters are set for greedy decoding, which ignores them.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_ids: tuple[int, ...] | None = None
    bad_words: tuple[tuple[int, ...], ...] = ()
    min_tokens: int = 0

    def __post_init__(self) -> None:
        checks = (
            ("temperature", self.temperature, 0.0 <= self.temperature < math.inf, "a finite number of 0 or more"),
            ("top_k", self.top_k, self.top_k >= 0, "0 (off) or a positive number of tokens"),
            ("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "more than 0, at most 1 (off)"),
            ("min_p", self.min_p, 0.0 <= self.min_p <= 1.0, "from 0 (off) to 1"),
            ("seed", self.seed, self.seed is None or self.seed >= 0, "0 or more"),
            ("typical_p", self.typical_p, 0.0 < self.typical_p <= 1.0, "more than 0, at most 1 (off)"),
            ("repetition_penalty", self.repetition_penalty, 0.0 < self.repetition_penalty < math.inf, "more than 0"),
            ("presence_penalty", self.presence_penalty, math.isfinite(self.presence_penalty), "a finite number"),
            ("frequency_penalty", self.frequency_penalty, math.isfinite(self.frequency_penalty), "a finite number"),
            ("logit_bias", self.logit_bias, not any(map(math.isnan, self.logit_bias.values())), "numbers"),
            ("allowed_ids", self.allowed_ids, self.allowed_ids != (), "at least one id"),
            ("bad_words", self.bad_words, all(self.bad_words), "sequences of at least one id"),
            ("min_tokens", self.min_tokens, self.min_tokens >= 0, "0 or more"),
        )
        for name, value, is_right, expected in checks:
            if not is_right:
                raise OptionError(f"The sampling option {name} is out of range.", found=value, expected=expected)
        if self.is_greedy and self.filters:
            raise OptionError(
                "Greedy decoding ignores top_k, top_p, min_p and typical_p.",
                found=f"temperature 0 with {', '.join(self.filters)}",
                hint="set a temperature above 0 (1.0 is the model's own distribution), or leave them out",
            )

    @property
    def is_greedy(self) -> bool:
        """Whether the highest logit always wins."""
        return self.temperature == 0.0

    @property
    def filters(self) -> dict[str, float]:
        """The filters that are on, by name."""
        values = {"top_k": (self.top_k, 0), "top_p": (self.top_p, 1), "min_p": (self.min_p, 0)}
        values["typical_p"] = (self.typical_p, 1)
        return {name: value for name, (value, off) in values.items() if value != off}

    def named_ids(self) -> set[int]:
        """All token ids that the options name."""
        return {*self.logit_bias, *(self.allowed_ids or ()), *(token for word in self.bad_words for token in word)}


class Sampler:
    """Draws tokens one after the other.

    Args:
        options: How to choose.
        end_ids: Ids that end a text.
        processors: More logit processors, before those of the options.
    """

    def __init__(
        self, options: SamplingOptions, *, end_ids: Sequence[int] = (), processors: Sequence[LogitProcessor] = ()
    ) -> None:
        self._options = options
        self._processors = [*processors, *logit_processors(options, end_ids)]

    @cached_property
    def _random(self) -> np.random.Generator:
        """Made when something is drawn: greedy texts need none, and ``numpy.random`` takes 7 MB."""
        return np.random.default_rng(self._options.seed)

    @property
    def changes_scores(self) -> bool:
        """Whether processors change scores before a token is chosen."""
        return bool(self._processors)

    def choose(self, scores: TokenScores, prompt_ids: Sequence[int] = (), token_ids: Sequence[int] = ()) -> int:
        """Choose a token.

        Args:
            scores: What is known of the next token; processors change it, and a nucleus may have it score more tokens.
            prompt_ids: Tokens of the prompt.
            token_ids: Tokens generated so far.

        Returns:
            The chosen token id.

        Raises:
            BundleError: The logits hold NaN or +inf, or nothing but padding.
            OptionError: The options forbid every token.
        """
        check_logits(scores.logits)
        for processor in self._processors:
            processor.process(scores, prompt_ids, token_ids)
        if self._processors and scores.logits.max(initial=-np.inf) == -np.inf:
            _open_nucleus(scores, np.finfo(np.float64).tiny, 1.0)  # every candidate is forbidden: find others
            if scores.logits.max(initial=-np.inf) == -np.inf:
                raise OptionError("The options leave no token that may come.", found=f"{len(token_ids)} new tokens")
        options = self._options
        if options.is_greedy:
            return int(scores.ids[scores.logits == scores.logits.max()].min())
        if not options.filters:
            return scores.draw(self._random, options.temperature)
        ids, probabilities = self._distribution(scores)
        cumulative = np.cumsum(probabilities)
        place = int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))
        return int(ids[min(place, len(ids) - 1)])

    def _distribution(self, scores: TokenScores) -> tuple[npt.NDArray[np.int64], _Float64]:
        """Apply temperature and filters: ids and probabilities, likeliest first."""
        options = self._options
        rest = 0.0
        if options.top_k:
            scores.drop_rest()
        elif min(options.top_p, options.typical_p) < 1.0:
            rest = _open_nucleus(scores, min(options.top_p, options.typical_p), options.temperature)
        logits = scores.logits.astype(np.float64)
        keep = logits > -np.inf
        if 0 < options.top_k < np.count_nonzero(keep):
            keep &= logits >= np.partition(logits, -options.top_k)[-options.top_k]
        ids, logits = scores.ids[keep], logits[keep]
        order = np.lexsort((ids, -logits))
        # The largest is subtracted before dividing: a tiny temperature must not overflow.
        probabilities = _normalise(np.exp((logits[order] - logits.max()) / options.temperature)) * (1.0 - rest)
        if options.top_p < 1.0:
            before = np.cumsum(probabilities) - probabilities
            count = max(1, int(np.count_nonzero(before < options.top_p)))
            probabilities = _normalise(probabilities[:count])
        if options.min_p > 0.0:
            count = max(1, int(np.count_nonzero(probabilities >= options.min_p * probabilities[0])))
            probabilities = _normalise(probabilities[:count])
        ids = ids[order[: len(probabilities)]]
        if options.typical_p < 1.0:
            return _typical(ids, probabilities, options.typical_p)
        return ids, probabilities


def _typical(
    ids: npt.NDArray[np.int64], probabilities: _Float64, typical_p: float
) -> tuple[npt.NDArray[np.int64], _Float64]:
    """Keep tokens whose surprise is nearest to its expectation, with the probabilities that they had."""
    surprise = -np.log(probabilities)
    shift = np.abs(surprise - float((probabilities * surprise).sum()))
    nearest = np.argsort(shift, kind="stable")
    before = np.cumsum(probabilities[nearest]) - probabilities[nearest]
    last = max(1, int(np.count_nonzero(before < typical_p))) - 1
    kept = shift <= shift[nearest[last]]
    return ids[kept], _normalise(probabilities[kept])


def _open_nucleus(scores: TokenScores, top_p: float, temperature: float) -> float:
    """Score closed clusters until the exact tokens have the share ``top_p``; return the share that is left."""
    opened = _FIRST_OPENED
    while True:
        closed = scores.closed_log_masses(temperature)
        if not len(closed):
            return 0.0
        total = scores.log_partition(temperature)
        masses = np.exp(closed - total)
        rest = float(masses.sum())
        if 1.0 - rest >= top_p or not rest:
            return rest
        heaviest = np.argpartition(-masses, min(opened, len(masses) - 1))[:opened]
        scores.open_clusters(heaviest[masses[heaviest] > 0])
        opened *= 2


def _normalise(weights: _Float64) -> _Float64:
    """Scale weights to a sum of one."""
    return np.asarray(weights / weights.sum())


def check_logits(logits: npt.NDArray[np.float32]) -> None:
    """Refuse logits with which no choice makes sense.

    Args:
        logits: Any shape.

    Raises:
        BundleError: They hold NaN or +inf, or there is none above -inf.
    """
    highest = logits.max(initial=-np.inf)
    if not np.isfinite(highest):  # the maximum of numbers and NaN is NaN
        raise BundleError(
            "The model's logits are not finite.",
            found="no candidate at all" if highest == -np.inf else f"a highest logit of {highest}",
            expected="finite logits",
            hint="the bundle's weights are damaged or overflow: export it again, if need be with --body-precision fp32",
        )
