"""Tokens that were likely a moment ago stay candidates.

A cluster that stage 1 misjudges at one position often holds a token that was likely, and so was scored, a few positions
before: texts repeat their words. Scoring the likeliest tokens of the last positions again costs some hundred rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.sampling import check_logits

if TYPE_CHECKING:
    from flashhead_edge.exact_rows import ExactRows
    from flashhead_edge.runtimes.base import StepOutput
    from flashhead_edge.token_scores import TokenScores

_Int64 = npt.NDArray[np.int64]
_Float32 = npt.NDArray[np.float32]


class ContextCandidates:
    """Remembers the likeliest tokens of one text's last positions; each generation needs its own.

    Args:
        positions: How many positions are remembered.
        per_position: Likeliest tokens of each.
    """

    def __init__(self, positions: int, per_position: int = 5) -> None:
        self._recent = np.full((positions, per_position), -1, np.int64)  # -1 for none; a ring of positions
        self._next = 0

    @property
    def ids(self) -> _Int64:
        """The remembered tokens, ascending and distinct, [n] int64."""
        return np.unique(self._recent[self._recent >= 0])

    def process(self, scores: TokenScores, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> None:
        """Add the remembered tokens to scores, and remember theirs; a logit processor.

        Args:
            scores: What is known of the next token.
            prompt_ids: Tokens of the prompt.
            token_ids: Tokens generated so far.
        """
        scores.include(self.ids)
        self._remember(scores.ids, scores.logits)

    def best(self, output: StepOutput, row: int, rows: ExactRows) -> int:
        """The greedy token among candidates and remembered tokens, and remember; the same without ``TokenScores``.

        This is all that plain greedy decoding needs. The native library does it in one call, since between two steps
        every line of Python comes from memory.

        Args:
            output: What a step says.
            row: Its row.
            rows: The head's rows.

        Returns:
            The token, ties to the lowest id.

        Raises:
            BundleError: The logits are not finite.
        """
        head, state = output.head.row(row), output.hidden_states[row]
        ids, logits, token = head.candidate_ids[0], head.candidate_logits[0], int(head.token_ids[0])
        if (scorer := rows.scorer) is not None:
            best = scorer.best_token(state, ids, logits, token, self._recent, self._place())
            if best is not None:
                return best
        check_logits(logits)
        highest = logits.max()
        real = ids >= 0
        likely = _greatest(np.where(real, logits, np.float32(-np.inf)), self._recent.shape[1])
        likely = likely[real[likely]]
        found, scored = ids[likely], logits[likely]
        others = np.setdiff1d(self.ids, found)  # as the head rounded them, where both know them
        if len(others):
            found = np.concatenate([found, others])
            scored = np.concatenate([scored, rows.token_logits(state, others)])
        self._remember(found, scored)
        leading = scored.max()
        first = int(found[scored == leading].min())
        return first if leading > highest else min(token, first)

    def _place(self) -> _Int64:
        """The oldest position's tokens, [per_position], which are the next to be forgotten."""
        place: _Int64 = self._recent[self._next]
        self._next = (self._next + 1) % len(self._recent)
        return place

    def _remember(self, ids: _Int64, logits: _Float32) -> None:
        """Keep the likeliest tokens of a position, and forget those of the oldest one."""
        likeliest = ids[_greatest(logits, self._recent.shape[1])]
        place = self._place()
        place[: len(likeliest)] = likeliest
        place[len(likeliest) :] = -1


def _greatest(logits: _Float32, count: int) -> _Int64:
    """Places of the greatest logits, of all if there are no more, in no order."""
    rest = max(0, len(logits) - count)
    return logits.argpartition(rest)[rest:] if rest else np.arange(len(logits))
