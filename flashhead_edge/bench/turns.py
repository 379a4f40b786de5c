"""What is timed in a turn: reading a prompt, or generating greedily after a short one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.runtimes.decoder import Decoder

if TYPE_CHECKING:
    from flashhead_edge.bench.options import Test

_Int64 = npt.NDArray[np.int64]
#: Steps of a turn that do not count: threads still spin for the turn before, and its weights fill the caches.
SETTLING = 16
#: Tokens of the prompt before generation.
PROMPT_LENGTH = 8
#: What is fed: any text does for times; languages differ for agreement.
PROMPTS = (
    "The history of the lighthouse begins with a fire on the rock, which the fishermen of the bay kept through winter.",
    "def read_lines(path):\n    with open(path) as file:\n        return [line.rstrip() for line in file]\n",
    "Die Stadt liegt an einem Fluss und hat eine lange Geschichte, die bis in das Mittelalter reicht.",
    "Pour faire un bon pain, il faut de la farine, de l'eau, du sel et beaucoup de patience.",
)


@dataclass(frozen=True)
class Turn:
    """One head's turn.

    Attributes:
        tokens: Tokens that were read or generated while it counted, over all texts of the batch.
        seconds: Of every step that counts, [N] float64; one for a prompt.
    """

    tokens: int
    seconds: npt.NDArray[np.float64]

    @property
    def tokens_per_second(self) -> float:
        """Speed of the whole batch."""
        return float(self.tokens / self.seconds.sum())


def take_turn(decoder: Decoder, test: Test, ids: Sequence[int]) -> Turn:
    """Time one test.

    Args:
        decoder: What decodes; it fetches token ids only, or states where it has no head.
        test: What to time.
        ids: Tokens of prompts; they are repeated where they do not suffice.

    Returns:
        The times.
    """
    if test.kind == "pp":
        decoder.reset(batch=test.batch, positions=test.tokens)
        prompt = prompts_of(ids, test.batch, test.tokens)
        start = time.perf_counter()
        decoder.run(prompt, greedy=True)
        return Turn(prompt.size, np.array([time.perf_counter() - start]))
    prompt = prompts_of(ids, test.batch, PROMPT_LENGTH)
    settling = min(SETTLING, test.tokens // 2)
    decoder.reset(batch=test.batch, positions=PROMPT_LENGTH + test.tokens + settling)
    token = _next(decoder, prompt)
    seconds = np.empty(test.tokens + settling)
    for step in range(len(seconds)):
        start = time.perf_counter()
        token = _next(decoder, token)
        seconds[step] = time.perf_counter() - start
    return Turn(test.tokens * test.batch, seconds[settling:])


def prompts_of(ids: Sequence[int], batch: int, length: int) -> _Int64:
    """Different prompts of one length, [B, S] int64."""
    return np.resize(np.asarray(ids, np.int64), (batch, length))


def greedy_text(decoder: Decoder, prompt: _Int64, new_tokens: int) -> list[int]:
    """Tokens that a decoder writes after a prompt [1, S]."""
    decoder.reset(positions=prompt.shape[1] + new_tokens)
    token, text = _next(decoder, prompt), []
    for _ in range(new_tokens - 1):
        text.append(int(token[0, 0]))
        token = _next(decoder, token)
    return [*text, int(token[0, 0])]


def agreement_with(decoder: Decoder, prompts: Sequence[_Int64], texts: Sequence[Sequence[int]]) -> float:
    """Share of positions of other texts at which a decoder, fed these texts, wants the same token.

    Args:
        decoder: What decodes.
        prompts: Prompts, [1, S] each.
        texts: The tokens that follow each.
    """
    hits = 0
    for prompt, text in zip(prompts, texts, strict=True):
        decoder.reset(positions=prompt.shape[1] + len(text))
        fed = prompt
        for expected in text:
            hits += int(_next(decoder, fed)[0, 0]) == expected
            fed = np.array([[expected]], np.int64)
    return hits / sum(map(len, texts))


def _next(decoder: Decoder, input_ids: _Int64) -> _Int64:
    """Feed ids and return the greedy tokens [B, 1]; a step without a head has none, and is fed anything."""
    first = decoder.run(input_ids, greedy=True)[0]
    return input_ids[:, :1] if first.dtype.kind == "f" else np.asarray(first, np.int64)[:, None]
