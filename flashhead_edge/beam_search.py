"""Beam search: the most likely texts as a whole, kept side by side.

As in Transformers: with b beams the ``2 b`` best continuations of a step are looked at, those that end the text are
finished texts, the others the next beams; a finished text scores its log-probability divided by its length to the power
of the length penalty. The search ends when b texts are finished and, unless it may stop early, no beam can still be
better. Log-probabilities are over the whole vocabulary, and continuations come from tokens with exact logits.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flashhead_edge.errors import OptionError
from flashhead_edge.token_scores import TokenScores

if TYPE_CHECKING:
    from flashhead_edge.generator import Generator
    from flashhead_edge.runtimes.base import StepOutput


@dataclass(frozen=True)
class Beam:
    """A text found by beam search.

    Attributes:
        token_ids: Its tokens, the end-of-sequence token included.
        logprob: Natural log-probability of the tokens together.
        score: What beams are compared by: ``logprob / len(token_ids) ** length_penalty``.
        finished: Whether an end-of-sequence token ended it.
    """

    token_ids: tuple[int, ...]
    logprob: float
    score: float
    finished: bool


def beam_search(
    generator: Generator,
    prompt_ids: Sequence[int],
    *,
    num_beams: int,
    max_new_tokens: int,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
) -> list[Beam]:
    """Search for likely texts.

    Args:
        generator: The model.
        prompt_ids: Token ids of the prompt.
        num_beams: b, texts kept side by side, 1 or more.
        max_new_tokens: Upper limit of generated tokens.
        length_penalty: Power of the length; above 0 favours longer texts.
        early_stopping: End as soon as b texts are finished.

    Returns:
        b texts, the best first.

    Raises:
        OptionError: An option is out of range.
    """
    for name, value in (("num_beams", num_beams), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise OptionError(f"{name} is out of range.", found=value, expected="1 or more")
    ends = frozenset(generator.bundle.manifest.eos_token_ids)
    decoder = generator.decoder.for_batch(rows=num_beams, positions=len(prompt_ids) + max_new_tokens)
    output = decoder.read(0, prompt_ids)
    beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    done: list[Beam] = []
    for length in range(1, max_new_tokens + 1):
        found = heapq.nlargest(2 * num_beams, _continuations(generator, output, beams, 2 * num_beams))
        following: list[tuple[float, int, tuple[int, ...]]] = []
        for rank, (logprob, row, token) in enumerate(found):
            text = (*beams[row][1], token)
            if token not in ends:
                following.append((logprob, row, text))
            elif rank < num_beams:  # a later one would not have been a beam
                done.append(Beam(text, logprob, logprob / length**length_penalty, finished=True))
        following = following[:num_beams]
        done = sorted(done, key=lambda beam: -beam.score)[:num_beams]
        beams = [(logprob, text) for logprob, _, text in following]
        if not beams or length == max_new_tokens or _ends(done, beams, num_beams, length_penalty, early_stopping):
            break
        decoder.keep([row for _, row, _ in following])
        output = decoder.step([text[-1] for _, text in beams])
    rest = [Beam(text, logprob, logprob / len(text) ** length_penalty, finished=False) for logprob, text in beams]
    return sorted([*done, *rest], key=lambda beam: -beam.score)[:num_beams]


def _continuations(
    generator: Generator, output: StepOutput, beams: Sequence[tuple[float, tuple[int, ...]]], count: int
) -> list[tuple[float, int, int]]:
    """The best continuations of every beam: log-probability of the whole text, the beam's row, the token."""
    found = []
    for row, (logprob, _) in enumerate(beams):
        scores = TokenScores(output.head, output.hidden_states[row], row, vocabulary=generator.vocabulary)
        found += [(logprob + own, row, token) for token, own in scores.likeliest(count)]
    return found


def _ends(
    done: list[Beam],
    beams: list[tuple[float, tuple[int, ...]]],
    num_beams: int,
    length_penalty: float,
    early_stopping: bool,
) -> bool:
    """Whether no beam can displace a finished text."""
    if len(done) < num_beams:
        return False
    best_possible = max(logprob / len(text) ** length_penalty for logprob, text in beams)
    return early_stopping or best_possible <= min(beam.score for beam in done)
