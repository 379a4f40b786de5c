from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from benchmarks import plot_scaling
from benchmarks.models import RESULTS

REPORT = json.loads((RESULTS / "scaling.json").read_text())


@pytest.mark.parametrize("name", plot_scaling.HEAD_PLOTS)
def test_images_of_heads_are_those_of_the_results(name):
    image = plot_scaling.head_plot(name, REPORT[name])
    committed = (plot_scaling.IMAGES / f"scaling-{name}.svg").read_text()
    assert image == committed, "run: python -m benchmarks.plot_scaling"


def test_clusterings_are_drawn_between_their_limits():
    point = {"row_bytes": 4e8, "peak_rss_bytes": 9e8, "seconds": 20.0, "operations_s": 5.0}
    series = {"points": [point, {key: 3 * value for key, value in point.items()}]}
    images = plot_scaling.clustering_plots(series)
    assert list(images) == ["time", "memory"]
    for image, limit in zip(images.values(), ("operations / peak", "float32 rows alone"), strict=True):
        assert limit in [text.text for text in ElementTree.fromstring(image).iter()]
        assert "<circle" in image


@pytest.mark.parametrize("name", plot_scaling.HEAD_PLOTS)
def test_both_limits_are_drawn_and_below_what_was_measured(name):
    texts = [text.text for text in ElementTree.fromstring(plot_scaling.head_plot(name, REPORT[name])).iter()]
    assert {"its bytes / bandwidth", "its operations / peak"} <= set(texts)
    for point in REPORT[name]["points"]:
        assert point["operations_ms"] < point["ms_p50"]
        assert point["bytes_ms"] < point["ms_p50"]
