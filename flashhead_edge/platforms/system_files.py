"""Reading the files in which a system speaks of itself."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """Text of a system file, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
