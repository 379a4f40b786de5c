"""Versions of vLLM that the plugin was checked with: the one place that says so."""

from __future__ import annotations

import re

#: Oldest minor version whose names and signatures were checked.
OLDEST = (0, 14)
#: Newest one.
NEWEST_CHECKED = (0, 33)


def version_warning(version: str) -> str | None:
    """What to say of a version, or None where it was checked.

    Args:
        version: ``vllm.__version__``.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and OLDEST <= (int(found[1]), int(found[2])) <= NEWEST_CHECKED:
        return None
    checked = " to ".join(".".join(map(str, pair)) for pair in (OLDEST, NEWEST_CHECKED))
    return (
        f"flashhead_edge was checked with vLLM {checked}, and this is {version}. What to do: compare a few texts with "
        "FLASHHEAD_ENABLED=0 before you rely on it, or install a version in between."
    )
