"""Every variant of the two-stage head at the full shapes of real models, for every generation of GPU: no copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flashhead_edge.export.tensorrt_head import CENTROID_PRECISIONS, CLUSTER_PRECISIONS, TensorRtOptions
from flashhead_edge.manifest import BatchProfile
from tests.tensorrt_shapes import SHAPES, two_stage

pytestmark = pytest.mark.tensorrt

TARGETS = ("SM80", "SM86", "SM89", "SM120")
WITH_FLOAT8 = ("SM89", "SM120")
MOST_SCRATCH = 1 << 20
#: What TensorRT asks for beside the data wherever it takes a matrix product from its library.
WORKSPACE = 1 << 23
ONE = BatchProfile(1, 1, 1)


def targets_of(*precisions: str) -> tuple[str, ...]:
    return WITH_FLOAT8 if "fp8" in precisions else TARGETS


@pytest.mark.parametrize("rows", CLUSTER_PRECISIONS)
@pytest.mark.parametrize("centroids", CENTROID_PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_stage_makes_a_copy(tmp_path: Path, build: Any, shape: str, centroids: Any, rows: Any) -> None:
    """With weights as inputs, whose plan holds kernels only."""
    graph = two_stage(tmp_path, SHAPES[shape], TensorRtOptions(centroids, rows), inputs="all")
    for target in targets_of(centroids, rows):
        built = build(graph, target, ONE)
        assert built.plan, built.said[-2000:]
        assert built.scratch <= MOST_SCRATCH
        assert built.plan < 2 << 20


@pytest.mark.parametrize("precisions", [("int8", "fp16"), ("int4", "int8"), ("fp8", "fp8")])
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_inside_are_stored_as_they_are(tmp_path: Path, build: Any, shape: str, precisions: Any) -> None:
    """For the profile that exports write; the plan is no larger than its weights."""
    options = TensorRtOptions(*precisions)
    graph = two_stage(tmp_path, SHAPES[shape], options)
    weights = (tmp_path / "sparse.data").stat().st_size
    built = build(graph, "SM89", options.batch)
    assert built.plan, built.said[-2000:]
    assert built.plan < weights * 1.05 + (2 << 20)
    assert built.scratch <= options.batch.most * MOST_SCRATCH


@pytest.mark.parametrize("centroids", CENTROID_PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_matrix_product_copies_no_centroids(tmp_path: Path, build: Any, shape: str, centroids: Any) -> None:
    """Beyond the workspace, less than half of what the centroids would take in float16."""
    options = TensorRtOptions(centroids, max_batch=32)
    graph = two_stage(tmp_path, SHAPES[shape], options, inputs="rows")
    copy = SHAPES[shape].clusters * SHAPES[shape].width * 2
    for target in targets_of(centroids):
        built = build(graph, target, options.batch)
        assert built.plan, built.said[-2000:]
        assert built.scratch - WORKSPACE < copy / 2


@pytest.mark.parametrize("centroids", ["fp16", "fp32"])
def test_a_matrix_product_takes_plain_weights_as_inputs(tmp_path: Path, build: Any, centroids: Any) -> None:
    shape = SHAPES["llama-3.2-1b"]
    options = TensorRtOptions(centroids, max_batch=32, weight_inputs=True)
    built = build(two_stage(tmp_path, shape, options, inputs="all"), "SM86", options.batch)
    assert built.plan, built.said[-2000:]
    assert built.scratch - WORKSPACE < shape.clusters * shape.width
