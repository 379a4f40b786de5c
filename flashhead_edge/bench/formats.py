"""Rows as people and programs read them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import fields

from flashhead_edge.bench.options import BenchRow

FORMATS = ("md", "csv", "json", "jsonl")


def format_rows(rows: Sequence[BenchRow], kind: str) -> str:
    """Write rows.

    Args:
        rows: What was measured.
        kind: "md" for a Markdown table, or "csv", "json" (a list) or "jsonl".

    Returns:
        Text that ends in a line break.
    """
    if kind == "json":
        return json.dumps([row.as_dict() for row in rows], indent=2) + "\n"
    if kind == "jsonl":
        return "".join(json.dumps(row.as_dict()) + "\n" for row in rows)
    if kind == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(BenchRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.as_dict() for row in rows)
        return text.getvalue()
    return _markdown(rows)


def load_warning(rows: Sequence[BenchRow]) -> str | None:
    """What must be said beside figures that were measured on a busy machine; None if it was not.

    Args:
        rows: What was measured.
    """
    heavy = [row.other_load for row in rows if row.heavy_load]
    if not heavy:
        return None
    return (
        f"Other programs kept {max(heavy):.1f} cores busy meanwhile: neither speeds nor ratios can be relied on. "
        "Measure again on an idle machine."
    )


def _markdown(rows: Sequence[BenchRow]) -> str:
    """A table for people: one a model, as columns that are the same in all rows stand above it."""
    energy = any(row.energy_j_per_token is not None for row in rows)
    titles = ["head", "test", "batch", "threads", "tok/s", "min - max", "ratio", "step ms", "head ms", "agreement"]
    titles += ["peak MB", *(["J/token"] if energy else [])]
    on = "" if rows[0].gpu is None else f" on {rows[0].gpu}"
    lines = [f"{rows[0].model}{on}; ratios are to {rows[0].baseline}", ""]
    if warning := load_warning(rows):
        lines = [f"> **{warning}**", "", *lines]
    lines.append("| " + " | ".join(titles) + " |")
    lines.append("|---|---|" + "--:|" * (len(titles) - 2))
    for row in rows:
        cells = [
            row.head,
            row.test,
            str(row.batch),
            str(row.threads),
            f"{row.tokens_per_second_p50:.1f}",
            f"{row.tokens_per_second_min:.1f} - {row.tokens_per_second_max:.1f}",
            _number(row.ratio_p50, ".2f"),
            _number(row.step_ms_p50, ".2f"),
            _number(row.head_ms_p50, ".2f"),
            _number(row.agreement, ".4f"),
            _number(None if row.peak_rss_bytes is None else row.peak_rss_bytes / 1e6, ".0f"),
        ]
        if energy:
            cells.append(_number(row.energy_j_per_token, ".3f"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
