"""Plots of points and lines between two axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flashhead_edge.profiling.report.palette import Color
from flashhead_edge.profiling.report.scales import scale_of, short
from flashhead_edge.profiling.report.svg import Canvas, text_width

_LEFT, _RIGHT, _BOTTOM = 52, 14, 42
_LINE = 18
_DASH, _DOTS = "6 4", "2 3"
#: Left, top, right, bottom.
_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
        name: For the legend and tips; "" for none.
        points: Numbers (x, y).
        role: Of the colour.
        predicted: Dashed with hollow marks, for what was not measured.
        joined: Whether a line goes through the points.
        labels: Texts beside the points, "" for none.
        filled: Whether the area below is tinted.
        limit: Dotted without marks, for what nothing gets beyond.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    role: str = "accent"
    predicted: bool = False
    joined: bool = True
    labels: tuple[str, ...] = ()
    filled: bool = False
    limit: bool = False

    @property
    def dash(self) -> str:
        """Of the line."""
        return _DOTS if self.limit else _DASH if self.predicted else ""


@dataclass(frozen=True)
class Axes:
    """What the axes of a plot say.

    Attributes:
        x: Name and unit.
        y: Name and unit.
        x_log: Whether x is logarithmic.
        y_log: Whether y is.
        x_ticks: Numbers written at x; round ones if none are given.
        y_zero: Whether y begins at zero.
        y_most: Greatest number on y that is not cut, None for any.
    """

    x: str
    y: str
    x_log: bool = False
    y_log: bool = False
    x_ticks: tuple[float, ...] = ()
    y_zero: bool = False
    y_most: float | None = None


def xy_plot(
    title: str, series: Sequence[Series], axes: Axes, *, width: float, color: Color, height: float = 260
) -> Canvas:
    """Draw a plot.

    Args:
        title: What it shows.
        series: At least one, with at least one point each.
        axes: What the axes say.
        width: Pixels.
        color: Colours by role.
        height: Pixels, without the legend.

    Returns:
        The image.
    """
    named = [item for item in series if item.name]
    rows = _legend_rows(named, width)
    top = 14 + _LINE * len(rows)
    canvas = Canvas(width, height + _LINE * len(rows), title, _description(series, axes), color)
    _draw_legend(canvas, rows)
    bottom = canvas.height - _BOTTOM
    xs = [x for item in series for x, _ in item.points]
    ys = [y for item in series for _, y in item.points]
    x_scale = scale_of([*xs, *axes.x_ticks], _LEFT, width - _RIGHT, is_log=axes.x_log)
    y_scale = scale_of(ys, bottom, top, is_log=axes.y_log, zero=axes.y_zero)
    if axes.y_most is not None and y_scale.high > axes.y_most > y_scale.low:
        y_scale = scale_of([*ys, axes.y_most], bottom, top, margin=0.02)
    for value in y_scale.ticks(5):
        canvas.line(_LEFT, y_scale(value), width - _RIGHT, y_scale(value), "grid")
        canvas.text(_LEFT - 6, y_scale(value) + 4, short(value), anchor="end", size=11)
    for value in axes.x_ticks or x_scale.ticks(int(width / 60)):
        canvas.line(x_scale(value), bottom, x_scale(value), bottom + 4, "axis")
        canvas.text(x_scale(value), bottom + 16, short(value), anchor="middle", size=11)
    canvas.line(_LEFT, bottom, width - _RIGHT, bottom, "axis")
    canvas.text((_LEFT + width - _RIGHT) / 2, canvas.height - 6, axes.x, anchor="middle")
    canvas.text(14, (top + bottom) / 2, axes.y, anchor="middle", turned=True)
    taken: list[_Box] = []
    for item in series:
        places = [(x_scale(x), y_scale(y)) for x, y in item.points]
        taken += [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
        _draw_series(canvas, item, places, bottom)
    for item in series:
        for (x, y), label in zip(item.points, item.labels, strict=False):
            _draw_label(canvas, label, x_scale(x), y_scale(y), taken, (_LEFT, top - 8, width - 2, bottom))
    return canvas


def _draw_series(canvas: Canvas, item: Series, places: Sequence[tuple[float, float]], bottom: float) -> None:
    """Line and marks."""
    if item.joined and len(places) > 1:
        canvas.polyline(places, item.role, dash=item.dash, under=bottom if item.filled else None)
    labels = item.labels or ("",) * len(places)
    for (x, y), (px, py), label in zip(item.points, places, labels, strict=True):
        tip = f"{item.name} {label}: {x:.4g}, {y:.4g}".strip()
        if item.limit:
            continue
        if item.joined:
            canvas.dot(px, py, item.role, tip=tip, size=3.5, hollow=item.predicted)
        else:
            canvas.diamond(px, py, item.role, tip=tip, hollow=item.predicted)


def _draw_label(canvas: Canvas, label: str, x: float, y: float, taken: list[_Box], frame: _Box) -> None:
    """Write a label beside its mark where it covers nothing; without such a place it is only in the tip."""
    wide = text_width(label, 11)
    for left, base in ((x + 7, y + 15), (x - 7 - wide, y + 15), (x + 8, y + 4), (x - 8 - wide, y - 6), (x + 7, y - 7)):
        box = (left, base - 10, left + wide, base + 3)
        inside = frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3]
        if label and inside and not any(_overlap(box, other) for other in taken):
            canvas.text(left, base, label, size=11)
            taken.append(box)
            return


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _legend_rows(series: Sequence[Series], width: float) -> list[list[tuple[float, Series]]]:
    """Entries of the legend with their places, as many a row as fit."""
    rows: list[list[tuple[float, Series]]] = []
    x = width
    for item in series:
        needed = 30 + text_width(_legend_text(item))
        if x + needed > width:
            rows.append([])
            x = 8.0
        rows[-1].append((x, item))
        x += needed
    return rows


def _draw_legend(canvas: Canvas, rows: Sequence[Sequence[tuple[float, Series]]]) -> None:
    for number, row in enumerate(rows):
        y = 8 + _LINE * number
        for x, item in row:
            if item.joined:
                canvas.line(x, y, x + 18, y, item.role, width=2, dash=item.dash)
                if not item.limit:
                    canvas.dot(x + 9, y, item.role, size=3, hollow=item.predicted)
            else:
                canvas.diamond(x + 9, y, item.role, size=5, hollow=item.predicted)
            canvas.text(x + 24, y + 4, _legend_text(item))


def _legend_text(item: Series) -> str:
    return f"{item.name} (predicted)" if item.predicted else item.name


def _description(series: Sequence[Series], axes: Axes) -> str:
    """The numbers in words."""
    parts = []
    for item in series:
        points = "; ".join(
            f"{label + ' ' if label else ''}{x:.4g}: {y:.4g}"
            for (x, y), label in zip(item.points, item.labels or ("",) * len(item.points), strict=True)
        )
        parts.append(f"{_legend_text(item) or 'points'}: {points}")
    return f"{axes.y} against {axes.x}. {'. '.join(parts)}."
