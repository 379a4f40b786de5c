"""Markdown tables of reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: What a script wrote into ``results``.
Report = dict[str, Any]
#: Stands in the place of a figure or a table that there is no result of.
NOT_MEASURED = "not measured"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
