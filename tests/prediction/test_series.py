from __future__ import annotations

from dataclasses import replace

import pytest

from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.prediction.heads import two_stage_head
from flashhead_edge.prediction.limits import platform_limits
from flashhead_edge.prediction.roofline import predict_step
from flashhead_edge.prediction.series import predict_series
from flashhead_edge.prediction.shapes import BodyShape, HeadShape, ModelShape

ORIN = find_platform("jetson-orin-nano-8gb")
MODEL = ModelShape("gemma", 262_144, 640, BodyShape(18, 1, 256, 100_000_000, "int4"))
HEAD = two_stage_head(262_144)


def series(varied, head=HEAD):
    return [p for p in predict_series(MODEL, head, ORIN, platform_limits(ORIN)) if p.varied == varied]


@pytest.mark.parametrize("varied", ["probes", "batch", "vocabulary", "clusters"])
def test_one_thing_varies_and_time_grows_with_it(varied):
    points = series(varied)
    values = [point.value for point in points]
    assert values == sorted(values)
    assert len(set(values)) == len(values) >= 4
    if varied != "clusters":  # more clusters are more centroids, but smaller ones are opened
        assert [point.head_ms for point in points] == sorted(point.head_ms for point in points)


def test_the_heads_own_configuration_is_in_every_series():
    alone = predict_step(replace(MODEL, body=None), HEAD, ORIN, platform_limits(ORIN)).step_ms
    for varied, value in (("probes", HEAD.num_probes), ("batch", 1), ("vocabulary", 262_144), ("clusters", 8192)):
        (point,) = (point for point in series(varied) if point.value == value)
        assert point.head_ms == pytest.approx(alone)
        assert point.agreement is None


def test_probes_stay_within_the_clusters():
    small = HeadShape("two-stage", "fp16", 4, 8, 4, 0, "int8")
    assert all(1 <= point.num_probes <= point.num_clusters for point in predict_series(MODEL, small, ORIN, _limits()))


def test_a_dense_head_has_none():
    assert predict_series(MODEL, HeadShape("dense"), ORIN, _limits()) == ()


def _limits():
    return platform_limits(ORIN)
