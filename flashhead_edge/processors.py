"""Logit processors: penalties, biases, and tokens that may or may not come.

Each asks for exact scores of the tokens that it names, so it costs what it names and not the vocabulary. Definitions
and order are vLLM's (``vllm.v1.sample.sampler.Sampler``): allowed ids, bad words, minimum length, bias, penalties;
where Transformers has the same processor, it is the same but for the places that are said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from flashhead_edge.sampling import SamplingOptions
    from flashhead_edge.token_scores import TokenScores


class LogitProcessor(Protocol):
    """Changes the scores of a step before a token is chosen."""

    def process(self, scores: TokenScores, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> None:
        """Change scores in place.

        Args:
            scores: What is known of the next token.
            prompt_ids: Tokens of the prompt.
            token_ids: Tokens generated so far.
        """


class AllowedIds:
    """Leaves some tokens only.

    Args:
        token_ids: Distinct ids.
    """

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._ids = np.unique(np.asarray(token_ids, dtype=np.int64))

    def process(self, scores: TokenScores, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> None:
        """See :class:`LogitProcessor`."""
        scores.restrict(self._ids)


class BadWords:
    """Forbids the last token of a sequence where those before it have just been generated.

    As in vLLM, the prompt does not count as generated; in Transformers it does.

    Args:
        sequences: Sequences of token ids; those of one token are forbidden always.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self._sequences = [tuple(sequence) for sequence in sequences]

    def process(self, scores: TokenScores, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> None:
        """See :class:`LogitProcessor`."""
        forbidden = {
            last
            for *first, last in self._sequences
            if len(first) <= len(token_ids) and tuple(token_ids[len(token_ids) - len(first) :]) == tuple(first)
        }
        forbid(scores, sorted(forbidden))


class MinTokens:
    """Forbids tokens that end a text until it is long enough.

    Args:
        count: Least number of generated tokens before one of the ends.
        end_ids: Ids that end a text.
    """

    def __init__(self, count: int, end_ids: Sequence[int]) -> None:
        self._count = count
        self._end_ids = sorted(set(end_ids))

    def process(self, scores: TokenScores, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> None:
        """See :class:`LogitProcessor`."""
        if len(token_ids) < self._count:
            forbid(scores, self._end_ids)


class LogitBias:
    """Adds to the logits of some tokens.

    Args:
        bias: Number to add for each id.
    """

    def __init__(self, bias: Mapping[int, float]) -> None:
        self._ids = np.array(sorted(bias), dtype=np.int64)
        self._bias = np.array([bias[token] for token in sorted(bias)], dtype=np.float32)

    def process(self, scores: TokenScores, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> None:
        """See :class:`LogitProcessor`."""
        places = _places(scores, self._ids)
        scores.logits[places] += self._bias[np.searchsorted(self._ids, scores.ids[places])]


class Penalties:
    """Makes tokens that stand in the text less likely.

    Args:
        repetition: Divides positive logits of tokens in prompt and text, and multiplies negative ones (Keskar et al.,
            CTRL, 2019); 1 is off.
        presence: Subtracted once for a token in the generated text.
        frequency: Subtracted for each time that a token stands in the generated text.
    """

    def __init__(self, *, repetition: float = 1.0, presence: float = 0.0, frequency: float = 0.0) -> None:
        self._repetition = repetition
        self._presence = presence
        self._frequency = frequency

    def process(self, scores: TokenScores, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> None:
        """See :class:`LogitProcessor`."""
        if self._repetition != 1.0:
            places = _places(scores, [*prompt_ids, *token_ids])
            logits = scores.logits[places]
            factor = np.float32(self._repetition)
            scores.logits[places] = np.where(logits > 0, logits / factor, logits * factor)
        if self._presence or self._frequency:
            counts = Counter(token_ids)
            places = _places(scores, list(counts))
            times = np.array([counts[int(token)] for token in scores.ids[places]], dtype=np.float32)
            scores.logits[places] -= np.float32(self._frequency) * times + np.float32(self._presence)


def logit_processors(options: SamplingOptions, end_ids: Sequence[int]) -> list[LogitProcessor]:
    """The processors that options ask for, in their order.

    Args:
        options: How to choose tokens.
        end_ids: Ids that end a text.
    """
    processors: list[LogitProcessor] = []
    if options.allowed_ids is not None:
        processors.append(AllowedIds(options.allowed_ids))
    if options.bad_words:
        processors.append(BadWords(options.bad_words))
    if options.min_tokens:
        processors.append(MinTokens(options.min_tokens, end_ids))
    if options.logit_bias:
        processors.append(LogitBias(options.logit_bias))
    penalties = (options.repetition_penalty, options.presence_penalty, options.frequency_penalty)
    if penalties != (1.0, 0.0, 0.0):
        processors.append(Penalties(repetition=penalties[0], presence=penalties[1], frequency=penalties[2]))
    return processors


def forbid(scores: TokenScores, token_ids: Sequence[int]) -> None:
    """Make tokens impossible.

    Args:
        scores: What is known of the next token.
        token_ids: Distinct ids.
    """
    places = _places(scores, token_ids)  # before the array is looked up: scoring makes a longer one
    scores.logits[places] = -np.inf


def _places(scores: TokenScores, token_ids: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where tokens stand, scoring them first; those that cannot come are left out."""
    ids = np.unique(np.asarray(token_ids, dtype=np.int64))
    if not scores.has_rest:
        ids = ids[scores.contains(ids)]
    return scores.places(ids)
