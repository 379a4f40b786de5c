"""Tokens that were likely a moment ago stay candidates.

A cluster that stage 1 misjudges at one position often holds a token that was likely, and so was scored, a few positions
before: texts repeat their words. Scoring the likeliest tokens of the last positions again costs some hundred rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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
        self._positions = positions
        self._per_position = per_position
        self._recent: deque[list[int]] = deque()
        self._times: dict[int, int] = {}  # how many of the remembered positions have a token

    @property
    def ids(self) -> _Int64:
        """The remembered tokens, ascending and distinct, [n] int64."""
        known = np.fromiter(self._times, np.int64, len(self._times))
        known.sort()
        return known

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

        This is all that plain greedy decoding needs, in a third of the time.

        Args:
            output: What a step says.
            row: Its row.
            rows: The head's rows.

        Returns:
            The token, ties to the lowest id.
        """
        token, candidate_ids = int(output.head.token_ids[row]), output.head.candidate_ids[row]
        candidate_logits = output.head.candidate_logits[row]
        highest = candidate_logits.max()
        likely = _greatest(candidate_logits, self._per_position)
        ids, logits = candidate_ids[likely], candidate_logits[likely]
        if ids.min() < 0:  # fewer candidates than are remembered, and padding
            ids, logits = ids[ids >= 0], logits[ids >= 0]
        known = self.ids
        if len(known):
            scored = rows.token_logits(output.hidden_states[row], known)
            place = np.minimum(known.searchsorted(ids), len(known) - 1)
            same = known[place] == ids
            scored[place[same]] = logits[same]  # as the head rounded them
            ids, logits = np.concatenate([known, ids[~same]]), np.concatenate([scored, logits[~same]])
        self._remember(ids, logits)
        leading = logits.max()
        best = int(ids[logits == leading].min())
        return best if leading > highest else min(token, best)

    def _remember(self, ids: _Int64, logits: _Float32) -> None:
        """Keep the likeliest tokens of a position, and forget those of the oldest one."""
        if len(self._recent) == self._positions:
            for token in self._recent.popleft():
                if self._times[token] == 1:
                    del self._times[token]
                else:
                    self._times[token] -= 1
        likeliest = ids[_greatest(logits, self._per_position)].tolist()
        self._recent.append(likeliest)
        for token in likeliest:
            self._times[token] = self._times.get(token, 0) + 1


def _greatest(logits: _Float32, count: int) -> _Int64:
    """Places of the greatest logits, of all if there are no more, in no order."""
    rest = max(0, len(logits) - count)
    return logits.argpartition(rest)[rest:] if rest else np.arange(len(logits))
