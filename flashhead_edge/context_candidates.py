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
    from flashhead_edge.token_scores import TokenScores


class ContextCandidates:
    """A logit processor that adds candidates; it remembers one text, so each generation needs its own.

    Args:
        positions: How many positions are remembered.
        per_position: Likeliest tokens of each.
    """

    def __init__(self, positions: int, per_position: int = 5) -> None:
        self._recent: deque[npt.NDArray[np.int64]] = deque(maxlen=positions)
        self._per_position = per_position

    def process(self, scores: TokenScores, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> None:
        """See :class:`flashhead_edge.processors.LogitProcessor`."""
        if self._recent:
            known = np.sort(np.concatenate(self._recent))
            scores.include(known[np.append(True, known[1:] != known[:-1])])  # np.unique takes a millisecond
        count = min(self._per_position, len(scores.ids))
        self._recent.append(scores.ids[np.argpartition(-scores.logits, count - 1)[:count]])
