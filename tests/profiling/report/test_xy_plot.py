from __future__ import annotations

from flashhead_edge.profiling.report.palette import LIGHT, fixed
from flashhead_edge.profiling.report.xy_plot import Axes, Series, xy_plot

POINTS = ((1.0, 2.0), (10.0, 3.0))


def image(**options: bool) -> str:
    series = [Series("measured", POINTS), Series("other", POINTS, **options)]
    return xy_plot("Title", series, Axes("x", "y", x_log=True), width=400, color=fixed(LIGHT)).render()


def test_a_limit_is_dotted_and_has_no_marks() -> None:
    marks = len(POINTS) + 1  # one in the legend
    assert (image().count("<circle"), image(limit=True).count("<circle")) == (2 * marks, marks)
    assert image(limit=True).count('stroke-dasharray="2 3"') == 2
    assert "stroke-dasharray" not in image()


def test_a_prediction_is_dashed() -> None:
    assert image(predicted=True).count('stroke-dasharray="6 4"') == 2
