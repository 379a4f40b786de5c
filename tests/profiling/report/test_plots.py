"""Plots: well-formed, inside their frame, with what is predicted in another style."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flashhead_edge.bench.options import BenchRow
from flashhead_edge.errors import ProfileError
from flashhead_edge.profiling.report.content import Content, label_of, read_rows
from flashhead_edge.profiling.report.palette import LIGHT, fixed, variable
from flashhead_edge.profiling.report.plot_files import png_of, write_plots
from flashhead_edge.profiling.report.plots import PLOTS
from tests.profiling.profiles import MEASURED, PREDICTED

SVG = "{http://www.w3.org/2000/svg}"


def row(head: str, speed: float, head_ms: float | None, agreement: float | None) -> BenchRow:
    return BenchRow(
        model="model",
        test="tg64",
        head=head,
        runtime="onnxruntime 1.20",
        batch=1,
        threads=2,
        tokens_per_second_p50=speed,
        tokens_per_second_min=0.9 * speed,
        tokens_per_second_max=1.1 * speed,
        ratio_p50=1.0,
        baseline="dense-int8",
        rounds=3,
        other_load=0.0,
        heavy_load=False,
        cpu_model="Some CPU",
        native_kernels=None,
        version="0.1",
        head_ms_p50=head_ms,
        agreement=agreement,
    )


ROWS = (row("two-stage", 250, 0.9, 0.98), row("dense-int8", 120, 5.0, 0.99), row("llama.cpp", 100, None, None))
POINTS = tuple(replace(point, head_ms=point.head_ms / 2) for point in MEASURED.head_points)
FULL = Content((MEASURED, replace(PREDICTED, head_points=POINTS)), ROWS)


def texts(image: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(image).iter(f"{SVG}text")]


def places(image: str) -> Iterator[tuple[float, float]]:
    """Corners and centres of everything that is drawn."""
    for element in ElementTree.fromstring(image).iter():
        for x, y in (("x", "y"), ("cx", "cy"), ("x1", "y1"), ("x2", "y2")):
            if x in element.attrib and y in element.attrib:
                yield float(element.get(x, 0)), float(element.get(y, 0))
        for pair in element.get("points", "").split():
            left, _, top = pair.partition(",")
            yield float(left), float(top)


@pytest.mark.parametrize("width", [326, 516])
@pytest.mark.parametrize("name", [name for name in PLOTS if "clusters" not in name and "vocabulary" not in name])
def test_a_plot_is_well_formed_and_inside_its_frame(name: str, width: int) -> None:
    canvas = PLOTS[name](FULL, width, fixed(LIGHT))
    assert canvas is not None
    root = ElementTree.fromstring(canvas.render())
    assert root.get("role") == "img"
    labels = [element for element in root if element.tag in (f"{SVG}title", f"{SVG}desc")]
    assert len(labels) == 2
    assert all(element.text for element in labels)
    assert root.get("aria-labelledby") == " ".join(element.get("id", "") for element in labels)
    assert all(0 <= x <= width and 0 <= y <= canvas.height for x, y in places(canvas.render()))


def test_figures_are_those_of_the_profile() -> None:
    canvas = PLOTS["stages"](FULL, 516, variable)
    assert canvas is not None
    assert {"3.000 ms", "0.300 ms", "0.050 ms"} <= set(texts(canvas.render()))
    bars = list(ElementTree.fromstring(canvas.render()).iter(f"{SVG}rect"))
    widths = [float(bar.get("width", 0)) for bar in bars]
    expected = [stage.ms / MEASURED.stages[0].ms * widths[0] for stage in MEASURED.stages]
    assert widths == pytest.approx(expected, abs=0.11)
    assert "memory 20.0 GB/s" in texts(PLOTS["bandwidth"](FULL, 516, variable).render())  # type: ignore[union-attr]


def test_predictions_look_different() -> None:
    def drawn(name: str, content: Content) -> str:
        canvas = PLOTS[name](content, 516, variable)
        assert canvas is not None
        return canvas.render()

    measured = Content((MEASURED,))
    assert "pattern" not in drawn("breakdown", measured)
    assert "pattern" in drawn("breakdown", FULL)
    assert any("predicted" in text for text in texts(drawn("breakdown", FULL)))
    assert "stroke-dasharray" not in drawn("scaling-batch", measured)
    assert "stroke-dasharray" in drawn("scaling-batch", FULL)


def test_what_was_not_measured_is_not_drawn() -> None:
    bare = Content((replace(MEASURED, head_points=(), memory=replace(MEASURED.memory, samples=())),))
    drawn = {name for name, plot in PLOTS.items() if plot(bare, 516, variable) is not None}
    assert drawn == {"breakdown", "stages", "bandwidth"}


def test_files(tmp_path: Path) -> None:
    files = write_plots(FULL, tmp_path / "plots")
    assert {path.suffix for path in files} == {".svg", ".png"}
    for path in files:
        if path.suffix == ".svg":
            assert "var(" not in path.read_text()
            ElementTree.fromstring(path.read_text())
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "plots" / "breakdown.svg").read_text()
    without_text = re.sub(r"<text.*?</text>", "", svg)
    assert png_of(svg) != png_of(without_text)  # fonts were found


def test_content() -> None:
    with pytest.raises(ProfileError, match="needs a profile"):
        Content(())
    other = replace(MEASURED, model=replace(MEASURED.model, name="other"))
    with pytest.raises(ProfileError, match="one model"):
        Content((MEASURED, other))
    assert label_of(MEASURED, (MEASURED,)) == "two-stage head"
    assert "jetson-orin-nano-8gb" in label_of(PREDICTED, FULL.profiles)
    warned = Content((MEASURED,), (replace(ROWS[0], cpu_model="Another", heavy_load=True),)).warnings
    assert [part in " ".join(warned) for part in ("Another", "busy")] == [True, True]
    assert FULL.warnings == ()


def test_rows_of_bench_are_read(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    rows = read_rows(root / "benchmarks/results/bench-gemma3-270m.json")
    assert {row.head for row in rows} >= {"two-stage", "dense-int8"}
    path = tmp_path / "rows.json"
    path.write_text('[{"head": "x"}]')
    with pytest.raises(ProfileError, match="rows of bench"):
        read_rows(path)
