"""The plots of a report as files that stand alone: SVG, and PNG for where SVG is not taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flashhead_edge.errors import OptionalDependencyError, ProfileError
from flashhead_edge.files import write_bytes
from flashhead_edge.profiling.report.content import Content
from flashhead_edge.profiling.report.palette import LIGHT, fixed
from flashhead_edge.profiling.report.plots import PLOTS
from flashhead_edge.profiling.report.svg import Canvas

FORMATS = ("svg", "png")
_WIDTH = 516
#: Pixels of a PNG for each of the plot's: 300 dots an inch at 12 cm.
_ZOOM = 2.75


def write_plots(content: Content, folder: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write every plot that the content has figures for.

    Args:
        content: What is shown.
        folder: Where the files go; it is made if it is missing.
        formats: "svg" and "png".

    Returns:
        The files.

    Raises:
        OptionalDependencyError: PNG is asked for, and resvg-py is not installed.
        ProfileError: PNG is asked for, and there is no font.
        ExportError: The disk is full or not writable.
    """
    if "png" in formats:
        _check_fonts()
    written = []
    for name, plot in PLOTS.items():
        canvas = plot(content, _WIDTH, fixed(LIGHT))
        if canvas is None:
            continue
        image = canvas.render(background="card")
        for kind in formats:
            path = folder / f"{name}.{kind}"
            write_bytes(path, image.encode() if kind == "svg" else png_of(image))
            written.append(path)
    return written


def png_of(image: str, zoom: float = _ZOOM) -> bytes:
    """Draw an SVG as a PNG.

    Args:
        image: The SVG.
        zoom: Pixels for each of its own.

    Raises:
        OptionalDependencyError: resvg-py is not installed.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise OptionalDependencyError("resvg_py", "report", "Drawing PNG files") from error
    return bytes(resvg_py.svg_to_bytes(svg_string=image, zoom=zoom))


def _check_fonts() -> None:
    """Refuse to draw plots whose texts would be missing."""
    written, empty = (Canvas(40, 20, "", "", fixed(LIGHT)) for _ in range(2))
    written.text(2, 15, "M", role="text")
    if png_of(written.render()) == png_of(empty.render()):
        raise ProfileError(
            "There is no font to write into PNG files.",
            expected="a sans-serif font",
            hint="install one, such as Debian's fonts-dejavu-core, or write SVG files only",
        )
