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
        self._recent: deque[_Int64] = deque(maxlen=positions)
        self._per_position = per_position

    @property
    def ids(self) -> _Int64:
        """The remembered tokens, ascending and distinct, [n] int64."""
        if not self._recent:
            return np.empty(0, np.int64)
        known = np.sort(np.concatenate(self._recent))
        return np.asarray(known[np.append(True, known[1:] != known[:-1])])  # np.unique takes a millisecond

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
        ids, logits = output.head.candidate_ids[row], output.head.candidate_logits[row]
        known = self.ids
        likely = np.argpartition(-logits, min(self._per_position, len(logits)) - 1)[: self._per_position]
        ids, logits = ids[likely], logits[likely]
        if len(known):
            scored = rows.token_logits(output.hidden_states[row], known)
            new = ~(known[:, None] == ids).any(axis=1)
            ids, logits = np.concatenate([ids, known[new]]), np.concatenate([logits, scored[new]])
        real = ids >= 0
        self._remember(ids[real], logits[real])
        token, highest = int(output.head.token_ids[row]), output.head.candidate_logits[row].max()
        better = ids[(logits > highest) & real]
        if len(better):
            leading = logits[real].max()
            return int(ids[(logits == leading) & real].min())
        return int(min([token, *ids[(logits == highest) & real]]))

    def _remember(self, ids: _Int64, logits: _Float32) -> None:
        """Keep the likeliest tokens of a position."""
        count = min(self._per_position, len(ids))
        self._recent.append(ids[np.argpartition(-logits, count - 1)[:count]])
