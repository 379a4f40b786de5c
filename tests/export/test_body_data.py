"""The body's weights in their own file: scales in half precision, everything else as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flashhead_edge.errors import BodyExportError
from flashhead_edge.export.body_data import write_body_data
from flashhead_edge.export.native_products import use_native_products
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.runtimes.session import open_session

ROWS, WIDTH = 40, 96


def builders_graph(folder: Path, scale: float = 1.0) -> onnx.ModelProto:
    """Two products of one weight's scales with float32 scales in a file, as the model builder writes them."""
    random = np.random.default_rng(0)
    quantized = quantize_rows(random.normal(size=(ROWS, WIDTH)).astype(np.float32), 4)
    scales = (quantized.float_scales * random.uniform(0.9, 1.1, quantized.scales.shape) * scale).astype(np.float32)
    tensors = [
        numpy_helper.from_array(quantized.codes, "codes"),
        numpy_helper.from_array(scales, "scales"),
        numpy_helper.from_array(random.normal(size=ROWS).astype(np.float32), "bias"),
    ]
    sizes = {"K": WIDTH, "N": ROWS, "bits": 4, "block_size": 32, "accuracy_level": 4}
    inputs = ["x", "codes", "scales"]
    nodes = [
        helper.make_node("MatMulNBits", inputs, ["a"], domain="com.microsoft", **sizes),
        helper.make_node("MatMulNBits", inputs, ["b"], domain="com.microsoft", **sizes),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Add", ["c", "bias"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["B", WIDTH])], [value("y", TensorProto.FLOAT, ["B", ROWS])], tensors
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return onnx.load(folder / "model.onnx", load_external_data=False)


def test_scales_are_halved_and_the_rest_is_kept(tmp_path: Path) -> None:
    model = builders_graph(tmp_path)
    before = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    write_body_data(model, tmp_path / "model.onnx.data", tmp_path / "body.onnx.data")
    onnx.save(model, tmp_path / "body.onnx")
    onnx.checker.check_model(str(tmp_path / "body.onnx"))
    after = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "body.onnx").graph.initializer}
    assert after.keys() == before.keys()
    for name in ("codes", "bias"):
        np.testing.assert_array_equal(after[name], before[name])
    np.testing.assert_array_equal(after["scales"], before["scales"].astype(np.float16))
    assert [node.op_type for node in model.graph.node] == ["Cast", "MatMulNBits", "MatMulNBits", "Add", "Add"]
    states = np.random.default_rng(1).normal(size=(3, WIDTH)).astype(np.float32)
    found, expected = (
        open_session(tmp_path / name, threads=1).run(None, {"x": states})[0] for name in ("body.onnx", "model.onnx")
    )
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-2)
    assert use_native_products(model) == 2
    assert [node.op_type for node in model.graph.node] == ["MatMulNBits", "MatMulNBits", "Add", "Add"]
    assert {node.input[2] for node in model.graph.node[:2]} == {"scales"}


def test_a_scale_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    model = builders_graph(tmp_path, 1e6)
    with pytest.raises(BodyExportError, match="half precision") as caught:
        write_body_data(model, tmp_path / "model.onnx.data", tmp_path / "body.onnx.data")
    assert "--body-precision fp32" in caught.value.hint
    assert not (tmp_path / "body.onnx.data").exists()
