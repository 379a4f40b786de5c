"""When the dense head is used instead, it is said once and counted."""

from __future__ import annotations

import logging
from collections import Counter

_logger = logging.getLogger("vllm.flashhead_edge")


class DensePath:
    """Calls of this process that took the dense head, by reason.

    Attributes:
        rows: Rows of hidden states that the dense head scored, by reason.
        two_stage_rows: Rows that the two-stage head scored.
    """

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.two_stage_rows = 0

    def take(self, reason: str, rows: int = 0) -> None:
        """Count rows, and say the reason the first time.

        Args:
            reason: Why, as a clause.
            rows: Rows scored; 0 for a decision that holds for all rows to come.
        """
        if reason not in self.rows:
            _logger.warning("The dense head is used: %s.", reason)
        self.rows[reason] += rows


#: Of this process.
DENSE_PATH = DensePath()
