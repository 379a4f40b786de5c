"""Drafted tokens: guesses of what comes next, which the model checks several at a time.

A guess costs little, and the model scores a guessed token and those after it in one step. The writer chooses a token at
every position as it would without guesses, and a guess was right if it is that token: greedy texts are the same token
for token, and drawn tokens have the same distribution, since a guess decides only which positions were scored
beforehand (with guesses that are not random this is speculative sampling, Leviathan et al., 2023: the guess d is
accepted with probability p(d), and otherwise the token comes from p without d).

The same token for token, that is, where a decoder computes the same bits for a token alone and among others. Over the
native library's attention and low-bit products it does on every processor; whether it does over another runtime's,
:func:`computes_alike` finds out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from flashhead_edge import layout
from flashhead_edge.errors import OptionError

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.generator import Generator
    from flashhead_edge.runtimes.decoder import AnyDecoder

_log = logging.getLogger(__name__)


class Drafter(Protocol):
    """Guesses the next tokens."""

    def draft(self, token_ids: Sequence[int], count: int) -> list[int]:
        """Guess.

        Args:
            token_ids: Prompt and text so far.
            count: Guesses at most.

        Returns:
            The guesses, in order; none where there is nothing to go by.
        """


def computes_alike(decoder: AnyDecoder) -> bool:
    """Whether a token's state has the same bits when it is fed alone and before others.

    Args:
        decoder: It is fed a few tokens, and has forgotten all others afterwards.
    """
    states = []
    for length in (1, 2, 5):
        decoder.reset()
        decoder.step(np.array([[0, 1, 2, 3]], dtype=np.int64))
        fed = np.array([[3, 2, 1, 0, 1][:length]], dtype=np.int64)
        states.append(decoder.step(fed, scored=length).hidden_states[0])
    decoder.reset()
    return all(np.array_equal(state, states[0]) for state in states)


def say_if_unlike(decoder: AnyDecoder, runtime: str) -> None:
    """Log if texts may not be the same with drafts as without: a warning where bodies round activations.

    Args:
        decoder: As for :func:`computes_alike`.
        runtime: Its name.
    """
    if not computes_alike(decoder):
        _log.log(
            logging.INFO if decoder.body.precision == "fp32" else logging.WARNING,
            "texts with drafts may part from those without, where two tokens are nearly as likely: on this processor, "
            "%s computes other last bits for one token than for several (docs/decoding.md, Drafts)",
            runtime,
        )


class PromptLookup:
    """Guesses that the text goes on as it did after the same few tokens before (Saxena, prompt lookup decoding, 2023).

    Args:
        longest: Tokens that are looked for, the last of the text; fewer where they have not come before.
    """

    def __init__(self, longest: int = 3) -> None:
        if longest < 1:
            raise OptionError(
                "The length of the tokens looked for is out of range.", found=longest, expected="1 or more"
            )
        self._longest = longest

    def draft(self, token_ids: Sequence[int], count: int) -> list[int]:
        """See :meth:`Drafter.draft`; the latest occurrence counts."""
        ids = np.asarray(token_ids, dtype=np.int64)
        for length in range(min(self._longest, len(ids) - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(ids[:-1], length)
            places = np.flatnonzero((windows == ids[-length:]).all(axis=1))
            if len(places):
                start = int(places[-1]) + length
                return [int(token) for token in ids[start : start + count]]
        return []


class DraftModel:
    """Guesses the tokens that a smaller model would write greedily.

    Args:
        generator: The smaller model.
        checked_by: The model that checks.

    Raises:
        OptionError: They have different tokenizers.
    """

    def __init__(self, generator: Generator, checked_by: Bundle) -> None:
        _check_same_tokenizer(checked_by, generator.bundle)
        self._generator = generator
        self._fed: list[int] = []

    def draft(self, token_ids: Sequence[int], count: int) -> list[int]:
        """See :meth:`Drafter.draft`; what its cache holds of the text is not read again."""
        decoder = self._generator.decoder
        ids = list(token_ids)
        most = self._generator.bundle.manifest.body.max_positions if self._generator.bundle.manifest.body else 0
        count = min(count, most - len(ids))
        if count < 1:
            return []
        same = next((i for i, (a, b) in enumerate(zip(self._fed, ids, strict=False)) if a != b), None)
        kept = min(len(self._fed) if same is None else same, len(ids) - 1, decoder.position)
        decoder.rewind(kept) if kept else decoder.reset()
        guesses: list[int] = []
        fed = ids[kept:]
        while len(guesses) < count:
            output = decoder.step(np.array([fed], dtype=np.int64), greedy=True)
            fed = [int(output.head.token_ids[0])]
            guesses += fed
        self._fed = ids + guesses[:-1]
        return guesses


def _check_same_tokenizer(bundle: Bundle, draft: Bundle) -> None:
    """Refuse a draft model whose token ids mean something else."""
    ours, theirs = (part.manifest.files[layout.TOKENIZER].sha256 for part in (bundle, draft))
    if ours != theirs:
        raise OptionError(
            "The draft model has another tokenizer.",
            found=f"{draft.path.name}: {layout.TOKENIZER} {theirs[:12]}...",
            expected=f"{ours[:12]}..., the one of {bundle.path.name}",
            hint="take a smaller model of the same family",
        )
