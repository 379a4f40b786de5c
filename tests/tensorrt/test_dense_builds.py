"""The dense baseline at full shapes: it must not lose to the two-stage head by a copy of its matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flashhead_edge.export.graph_files import load_graph, save_graph
from flashhead_edge.export.tensorrt_dense import DENSE_PRECISIONS
from flashhead_edge.export.tensorrt_head import batch_profile
from tests.tensorrt_shapes import SHAPES, dense

pytestmark = pytest.mark.tensorrt

WORKSPACE = 1 << 23


@pytest.mark.parametrize("precision", DENSE_PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_matrix_is_not_copied(tmp_path: Path, build: Any, shape: str, precision: Any) -> None:
    graph = dense(tmp_path, SHAPES[shape], precision)
    vocab, width = SHAPES[shape].vocab, SHAPES[shape].width
    for target in ("SM80", "SM86", "SM89", "SM120"):
        built = build(graph, target, batch_profile(1))
        assert built.plan, built.said[-2000:]
        assert built.scratch - WORKSPACE < vocab * width / 4  # a copy in float16 would be eight times as much


def test_int8_weights_alone_are_copied(tmp_path: Path, build: Any) -> None:
    """Why the state is rounded too, and that the test above can fail."""
    shape = SHAPES["smollm2-135m"]
    model = load_graph(dense(tmp_path, shape, "int8"))
    for node in list(model.graph.node):
        if node.name.endswith(("QuantizeState", "DequantizeState")):
            model.graph.node.remove(node)
        elif node.op_type == "Gemm":
            node.input[0] = "hidden_states"
    save_graph(model, tmp_path / "alone.onnx")
    built = build(tmp_path / "alone.onnx", "SM86", batch_profile(1))
    assert built.plan, built.said[-2000:]
    assert built.scratch > shape.vocab * shape.width
