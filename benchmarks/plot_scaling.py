"""Draws ``results/scaling.json`` into ``docs/images``: heads and clusterings by size, with the limits of the machine.

``--png FOLDER`` writes PNG files there too, for looking at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.models import RESULTS
from flashhead_edge.files import write_bytes
from flashhead_edge.profiling.report.palette import LIGHT, fixed
from flashhead_edge.profiling.report.plot_files import png_of
from flashhead_edge.profiling.report.xy_plot import Axes, Series, xy_plot

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
#: Title of a series' plot, and what is on its x axis.
HEAD_PLOTS = {
    "vocabulary": ("Head against vocabulary, H = 512", "vocabulary V"),
    "width": ("Head against hidden size, V = 65,536", "hidden size H"),
    "probes": ("Head against probes, 262,144 x 640, 32 tokens a cluster", "probes P"),
    "batch": ("Head against batch, 262,144 x 640", "batch B"),
}
#: What is drawn of each kind of head: name, precision, the legend's words, the role of the colour.
HEADS = (
    ("dense", "int8", "dense int8", "dense-head"),
    ("dense", "int4", "dense int4", "body"),
    ("standard", "fp16", "two-stage, standard operators", "centroids"),
    ("native", "fp16", "two-stage, native", "gather-dot"),
)
_WIDTH, _HEIGHT = 720, 380


def main() -> None:
    """Draw every series that was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--png", type=Path, help="folder for PNG files")
    arguments = parser.parse_args()
    report = json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))
    images = {f"scaling-{name}": head_plot(name, report[name]) for name in HEAD_PLOTS if name in report}
    if "clustering" in report:
        images |= {f"clustering-{name}": image for name, image in clustering_plots(report["clustering"]).items()}
    for name, image in images.items():
        write_bytes(IMAGES / f"{name}.svg", image.encode())
        if arguments.png is not None:
            write_bytes(arguments.png / f"{name}.png", png_of(image, 1.5))
    print(f"wrote {', '.join(images)}")


def head_plot(name: str, series: dict[str, Any]) -> str:
    """Times of the heads of a series, what is predicted of the native one, and its two limits."""
    title, label = HEAD_PLOTS[name]
    points = series["points"]
    lines = []
    for head, precision, words, role in HEADS:
        own = [point for point in points if (point["head"], point["precision"]) == (head, precision)]
        if own:
            lines.append(Series(words, line(own, "ms_p50"), role))
    native = [point for point in points if point["head"] == "native"]
    lines.append(Series("two-stage, native", line(native, "predicted_ms"), "gather-dot", predicted=True))
    lines.append(Series("its bytes / bandwidth", line(native, "bytes_ms"), "text", limit=True))
    lines.append(Series("its operations / peak", line(native, "operations_ms"), "sampling", limit=True))
    ticks = tuple(sorted({float(point["value"]) for point in points}))
    axes = Axes(label, "milliseconds", x_log=True, y_log=True, x_ticks=ticks)
    return xy_plot(title, lines, axes, width=_WIDTH, color=fixed(LIGHT), height=_HEIGHT).render(background="card")


def clustering_plots(series: dict[str, Any]) -> dict[str, str]:
    """Seconds and memory of clusterings against V x H, with their limits."""
    points = [{"value": point["row_bytes"] / 4e6, **point} for point in series["points"]]
    for point in points:
        point |= {"peak_gb": point["peak_rss_bytes"] / 1e9, "rows_gb": point["row_bytes"] / 1e9}
    time = [
        Series("clustering, 2 threads", line(points, "seconds"), "gather-dot"),
        Series("operations / peak", line(points, "operations_s"), "sampling", limit=True),
    ]
    memory = [
        Series("peak memory", line(points, "peak_gb"), "gather-dot"),
        Series("float32 rows alone", line(points, "rows_gb"), "text", limit=True),
    ]
    label = "weights V x H, millions"
    return {
        name: xy_plot(
            title,
            lines,
            Axes(label, unit, x_log=True, y_log=True),
            width=_WIDTH,
            color=fixed(LIGHT),
            height=_HEIGHT,
        ).render(background="card")
        for name, title, unit, lines in (
            ("time", "Time of a clustering", "seconds", time),
            ("memory", "Memory of a clustering", "GB", memory),
        )
    }


def line(points: Iterable[dict[str, Any]], key: str) -> tuple[tuple[float, float], ...]:
    """Points of a line, from the left."""
    found: Sequence[tuple[float, float]] = sorted((float(point["value"]), float(point[key])) for point in points)
    return tuple(found)


if __name__ == "__main__":
    main()
