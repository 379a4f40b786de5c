"""What TensorRT refuses, or does badly, is what we refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashhead_edge.export.graph_files import load_graph, save_graph
from flashhead_edge.export.tensorrt_head import TensorRtOptions, least_capability
from flashhead_edge.export.tensorrt_limits import MOST_PROBES
from flashhead_edge.manifest import BatchProfile
from tests.tensorrt_shapes import SHAPES, Shape, dense, two_stage

pytestmark = pytest.mark.tensorrt

ONE = BatchProfile(1, 1, 1)
TINY = Shape(8000, 64, 10)
#: Compute capabilities that this version builds for, in order.
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0")


@pytest.mark.parametrize(("precision", "name"), [("fp8", "fp8_e4m3"), ("int4", "int4"), ("int8", None)])
def test_gpus_without_a_type_are_named(tmp_path: Path, build: Any, precision: Any, name: str | None) -> None:
    """The least compute capability in the manifest is where TensorRT begins to build."""
    graph = two_stage(tmp_path, SHAPES["smollm2-135m"], TensorRtOptions(precision), inputs="all")
    for capability in CAPABILITIES:
        target = f"SM{capability.replace('.', '')}"
        built = build(graph, target, ONE)
        if float(capability) >= float(least_capability(precision)):
            assert built.plan, built.said[-2000:]
        else:
            assert built.plan is None
            assert f"Cannot compile for target(s) {target.lower()}" in built.said
            assert f"HW-specific datatypes: {name}" in built.said


def test_a_dense_head_in_int4_needs_the_type_too(tmp_path: Path, build: Any) -> None:
    built = build(dense(tmp_path, TINY, "int4"), "SM75", ONE)
    assert built.plan is None
    assert "HW-specific datatypes: int4" in built.said


def test_the_limit_of_probes_is_tensorrts(tmp_path: Path, build: Any) -> None:
    """One more than we allow is what it refuses."""
    shape = replace(TINY, size=2, probes=MOST_PROBES)
    graph = two_stage(tmp_path, shape, TensorRtOptions())
    assert build(graph, "SM86", ONE).plan
    model = load_graph(graph)
    for tensor in model.graph.initializer:
        if tensor.name == "/head/select/k":
            tensor.raw_data = np.array([MOST_PROBES + 1], np.int64).tobytes()
        if tensor.name in ("/head/logits/shape", "/head/ids/shape"):
            tensor.raw_data = np.array([0, (MOST_PROBES + 3) * 2], np.int64).tobytes()
    save_graph(model, tmp_path / "more.onnx")
    built = build(tmp_path / "more.onnx", "SM86", ONE)
    assert built.plan is None
    assert str(MOST_PROBES) in built.said


def test_rows_in_int4_would_be_copied(tmp_path: Path, build: Any) -> None:
    """Why clusters cannot be int4: the opened rows of a larger head go through memory in float32 or float16."""
    shape = SHAPES["llama-3.2-1b"]
    options = TensorRtOptions()
    object.__setattr__(options, "cluster_precision", "int4")
    built = build(two_stage(tmp_path, shape, options, inputs="all"), "SM86", ONE)
    assert built.plan, built.said[-2000:]
    assert built.scratch >= shape.probes * shape.size * shape.width * 2


def test_quantized_centroids_as_inputs_of_a_matrix_product_are_copied(tmp_path: Path, build: Any) -> None:
    """Why that pair of options is refused."""
    shape = SHAPES["llama-3.2-1b"]
    options = TensorRtOptions("int8", max_batch=16)
    built = build(two_stage(tmp_path, shape, options, inputs="all"), "SM86", options.batch)
    assert built.plan, built.said[-2000:]
    assert built.scratch - (1 << 23) > shape.clusters * shape.width * 0.9
