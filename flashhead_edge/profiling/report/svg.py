"""Drawing SVG: a canvas of shapes and texts, with a title and a description for those who do not see it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from flashhead_edge.profiling.report.palette import Color

#: Names for browsers, then fonts that programs without generic names find.
_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','Liberation Sans','DejaVu Sans',Arial,sans-serif"


class Canvas:
    """An image under construction; the origin is at the top left, units are pixels.

    Args:
        width: Of the image.
        height: Of the image.
        title: What it shows.
        description: What it says, for those who do not see it.
        color: Colours by role.
    """

    def __init__(self, width: float, height: float, title: str, description: str, color: Color) -> None:
        self.width, self.height = width, height
        self._title, self._description, self._color = title, description, color
        self._id = f"{re.sub('[^a-z]+', '-', title.lower())}-{width:g}"  # unique in a page, the same every time
        self._parts: list[str] = []
        self._patterns: dict[str, str] = {}

    def rect(
        self, x: float, y: float, width: float, height: float, role: str, *, tip: str = "", hatched: bool = False
    ) -> None:
        """A bar; hatched ones stand for predictions."""
        fill = self._hatch(role) if hatched else self._color(role)
        edge = f' stroke="{self._color(role)}" stroke-width="1"' if hatched else ""
        self._add("rect", f'{_at(x=x, y=y, width=max(width, 0), height=height)} rx="2" fill="{fill}"{edge}', tip)

    def line(self, x1: float, y1: float, x2: float, y2: float, role: str, *, width: float = 1, dash: str = "") -> None:
        """A straight line."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._add(
            "line", f'{_at(x1=x1, y1=y1, x2=x2, y2=y2)} stroke="{self._color(role)}" stroke-width="{width}"{dashed}'
        )

    def polyline(
        self, points: Sequence[tuple[float, float]], role: str, *, dash: str = "", under: float | None = None
    ) -> None:
        """A line through points; filled down to the height ``under`` if that is given."""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        if under is not None:
            corners = f"{points[0][0]:.1f},{under:.1f} {joined} {points[-1][0]:.1f},{under:.1f}"
            self._add("polygon", f'points="{corners}" fill="{self._color(role)}" fill-opacity="0.16"')
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        shape = f'points="{joined}" fill="none" stroke="{self._color(role)}" stroke-width="2" stroke-linejoin="round"'
        self._add("polyline", shape + dashed)

    def dot(self, x: float, y: float, role: str, *, tip: str = "", size: float = 4, hollow: bool = False) -> None:
        """A round mark; hollow ones stand for predictions."""
        fill = self._color("card") if hollow else self._color(role)
        self._add(
            "circle", f'{_at(cx=x, cy=y, r=size)} fill="{fill}" stroke="{self._color(role)}" stroke-width="2"', tip
        )

    def diamond(self, x: float, y: float, role: str, *, tip: str = "", size: float = 6, hollow: bool = False) -> None:
        """A mark with four corners; hollow ones stand for predictions."""
        fill = self._color("card") if hollow else self._color(role)
        corners = f"{x:.1f},{y - size:.1f} {x + size:.1f},{y:.1f} {x:.1f},{y + size:.1f} {x - size:.1f},{y:.1f}"
        edge = f'stroke="{self._color(role)}" stroke-width="2"'
        self._add("polygon", f'points="{corners}" fill="{fill}" {edge}', tip)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        role: str = "muted",
        anchor: str = "start",
        size: float = 12,
        bold: bool = False,
        turned: bool = False,
    ) -> None:
        """A line of text at its baseline, apart from what it lies on."""
        weight = ' font-weight="600"' if bold else ""
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        halo = f'paint-order="stroke" stroke="{self._color("card")}" stroke-width="3" stroke-linejoin="round"'
        place = f'{_at(x=x, y=y)} text-anchor="{anchor}"{turn} {halo}'
        look = f'fill="{self._color(role)}" font-size="{size:g}"{weight}'
        self._parts.append(f"<text {place} {look}>{escape(text)}</text>")

    def render(self, *, background: str | None = None) -> str:
        """The image.

        Args:
            background: Role of a colour behind everything, for files that stand alone.
        """
        names = f'aria-labelledby="{self._id}-title {self._id}-desc"'
        size = f'viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" height="{self.height:g}"'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {names} font-family="{escape(_FONT)}">'
            f'<title id="{self._id}-title">{escape(self._title)}</title>'
            f'<desc id="{self._id}-desc">{escape(self._description)}</desc>'
        )
        patterns = f"<defs>{''.join(self._patterns.values())}</defs>" if self._patterns else ""
        behind = f'<rect width="100%" height="100%" fill="{self._color(background)}"/>' if background else ""
        return f"{head}{patterns}{behind}{''.join(self._parts)}</svg>"

    def _add(self, tag: str, attributes: str, tip: str = "") -> None:
        end = f"><title>{escape(tip)}</title></{tag}>" if tip else "/>"
        self._parts.append(f"<{tag} {attributes}{end}")

    def _hatch(self, role: str) -> str:
        """A pattern of thin stripes."""
        name = f"{self._id}-{role}"
        color = self._color(role)
        self._patterns[role] = (
            f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
            f'<rect width="6" height="6" fill="{color}" fill-opacity="0.18"/>'
            f'<rect width="2" height="6" fill="{color}"/></pattern>'
        )
        return f"url(#{name})"


def text_width(text: str, size: float = 12) -> float:
    """About how wide a text is: 0.56 of its size a character, as in common sans-serif fonts."""
    return 0.56 * size * len(text)


def fitted(text: str, width: float, size: float = 12) -> str:
    """A text, cut with an ellipsis where it would be wider."""
    most = int(width / text_width("m", size))
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"


def _at(**numbers: float) -> str:
    return " ".join(f'{name}="{value:.1f}"' for name, value in numbers.items())
