"""Colours by what they stand for, in a light and a dark scheme."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flashhead_edge.profiling import record

#: Role of a stage's colour.
STAGE_ROLES = {
    record.BODY: "body",
    record.CENTROIDS: "centroids",
    record.TOP_K: "top-k",
    record.GATHER_DOT: "gather-dot",
    record.DENSE_HEAD: "dense-head",
    record.SAMPLING: "sampling",
    record.HOST: "host",
}
#: Text has a contrast of 4.5 and graphics of 3 against page and card (WCAG 2.2, 1.4.3 and 1.4.11); tests compute it.
LIGHT: Mapping[str, str] = {
    "page": "#f4f5f7",
    "card": "#ffffff",
    "text": "#1b2026",
    "muted": "#545c66",
    "grid": "#e3e6ea",
    "axis": "#8a929c",
    "accent": "#0a5fc2",
    "warning": "#9a4a00",
    "body": "#3f6fb0",
    "centroids": "#c8641b",
    "top-k": "#9a7d0a",
    "gather-dot": "#b93f3a",
    "dense-head": "#8250a8",
    "sampling": "#1f8474",
    "host": "#727a85",
}
DARK: Mapping[str, str] = {
    "page": "#0e1217",
    "card": "#171d25",
    "text": "#e8ebef",
    "muted": "#a3adb9",
    "grid": "#2a323c",
    "axis": "#6d7783",
    "accent": "#6cb2ff",
    "warning": "#ffb56b",
    "body": "#6d9be0",
    "centroids": "#f0965a",
    "top-k": "#d9b640",
    "gather-dot": "#ec7a70",
    "dense-head": "#b78bdc",
    "sampling": "#4cbcab",
    "host": "#9aa3af",
}
#: Where a colour comes from: a variable of the page's style, or the scheme itself.
Color = Callable[[str], str]


def variable(role: str) -> str:
    """The colour of a role in the page, whichever scheme it is in."""
    return f"var(--{role})"


def fixed(scheme: Mapping[str, str]) -> Color:
    """Colours of one scheme, for files that stand alone."""
    return scheme.__getitem__


def style(scheme: Mapping[str, str]) -> str:
    """Declarations of the variables."""
    return "".join(f"--{role}:{value};" for role, value in scheme.items())
