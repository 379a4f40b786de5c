"""Norms inside the native library's attention: what the nodes computed in whose place they are, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from flashhead_edge import native
from flashhead_edge.export.body_graph import tidy_body
from flashhead_edge.export.native_attention import use_native_attention
from flashhead_edge.export.native_norms import use_native_norms
from tests.native.test_attention import Shape, graph

PACKED, APART = Shape(4, 2, 40, packed=False, rotary=40), Shape(3, 1, 24, packed=False, rotary=None)


def normed_graph(shape: Shape, *, packed: bool, epsilon: float = 1e-3) -> onnx.ModelProto:
    """An attention whose queries and keys are normalized, as the bodies of bundles have it."""
    model = graph(shape)
    random = np.random.default_rng(0)
    nodes, inputs = [], list(model.graph.input)
    sizes = {"query": shape.heads * shape.head_dim, "k": shape.kv_heads * shape.head_dim}
    sizes["v"] = sizes["k"]
    if packed:
        width = sum(sizes.values())
        parts = numpy_helper.from_array(np.array(list(sizes.values())), "parts")
        model.graph.initializer.append(parts)
        nodes.append(helper.make_node("Split", ["packed", "parts"], ["raw.query", "raw.k", "v"], axis=-1))
        inputs = [value for value in inputs if value.name not in sizes]
        inputs.insert(0, helper.make_tensor_value_info("packed", TensorProto.FLOAT, ["B", "S", width]))
    else:
        for value in inputs:
            if value.name in ("query", "k"):
                value.name = f"raw.{value.name}"
    for name in ("query", "k"):
        weight = random.uniform(0.5, 1.5, shape.head_dim).astype(np.float32)
        shapes = {f"{name}.heads": [0, -1, shape.head_dim], f"{name}.flat": [0, -1, sizes[name]]}
        model.graph.initializer.extend(numpy_helper.from_array(np.array(size), n) for n, size in shapes.items())
        model.graph.initializer.append(numpy_helper.from_array(weight, f"{name}.weight"))
        nodes += [
            helper.make_node("Reshape", [f"raw.{name}", f"{name}.heads"], [f"{name}.rows"]),
            helper.make_node(
                "SimplifiedLayerNormalization",
                [f"{name}.rows", f"{name}.weight"],
                [f"{name}.normed"],
                name=f"{name}.norm",
                axis=-1,
                epsilon=epsilon,
            ),
            helper.make_node("Reshape", [f"{name}.normed", f"{name}.flat"], [name]),
        ]
    nodes += model.graph.node
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.input.extend(inputs)
    return spelled_out(model, shape.head_dim)


def spelled_out(model: onnx.ModelProto, head_dim: int) -> onnx.ModelProto:
    """Norms in standard nodes."""
    tidy_body(model, head_dim=head_dim, metadata={})
    assert "Pow" in {node.op_type for node in model.graph.node}
    return model


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.register_custom_ops_library(str(native.LIBRARY))
    found: list[np.ndarray] = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds)
    return found


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shape", [PACKED, APART], ids=["rotary", "no rotary"])
def test_it_is_what_the_nodes_computed(shape: Shape, packed: bool) -> None:
    separate, joined = (normed_graph(shape, packed=packed) for _ in range(2))
    for model in (separate, joined):
        assert use_native_attention(model)
    assert use_native_norms(joined) == 1
    assert [node.op_type for node in joined.graph.node] == ["GroupQueryAttention"]
    random = np.random.default_rng(1)
    feeds: dict[str, Any] = {}
    for value in joined.graph.input[: 1 if packed else 3]:
        width = value.type.tensor_type.shape.dim[2].dim_value
        feeds[value.name] = (random.normal(size=(2, 5, width)) * 0.1).astype(np.float32)
    past = random.normal(size=(2, shape.kv_heads, 6, shape.head_dim)).astype(np.float32)
    feeds |= {"past_key_values.0.key": past, "past_key_values.0.value": past[::-1].copy()}
    feeds |= {"lengths": np.array([10, 10], np.int32), "total": np.array(11, np.int32)}
    for found, expected in zip(run(joined, feeds), run(separate, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def changed(how: str) -> onnx.ModelProto:
    """A graph whose norms must stay."""
    model = normed_graph(PACKED, packed=True)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = {node.op_type: node for node in model.graph.node}  # the last of each kind: of the keys
    if how == "normed keys are wanted elsewhere":
        model.graph.output.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, None))
    elif how == "another power":
        constants["/model/norm/two"].CopyFrom(numpy_helper.from_array(np.float32(3), "/model/norm/two"))
    elif how == "another axis":
        constants["/model/norm/axes"].CopyFrom(numpy_helper.from_array(np.array([-2]), "/model/norm/axes"))
    elif how == "other heads":
        constants["k.heads"].CopyFrom(numpy_helper.from_array(np.array([0, -1, 20]), "k.heads"))
    elif how == "no norm of the keys":
        nodes["Reshape"].input[0] = "k.rows"
    elif how == "another epsilon":
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "other"))
        nodes["Add"].input[1] = "other"
    elif how == "a computed weight":
        nodes["Mul"].input[1] = "raw.query"
    return model


@pytest.mark.parametrize(
    "how",
    [
        "normed keys are wanted elsewhere",
        "another power",
        "another axis",
        "other heads",
        "no norm of the keys",
        "another epsilon",
        "a computed weight",
    ],
)
def test_other_graphs_stay_as_they_are(how: str) -> None:
    model = changed(how)
    assert use_native_attention(model)
    before = [node.SerializeToString(deterministic=True) for node in model.graph.node]
    assert use_native_norms(model) == 0
    assert before == [node.SerializeToString(deterministic=True) for node in model.graph.node]


def test_a_split_that_others_read_stays() -> None:
    model = normed_graph(PACKED, packed=True)
    model.graph.output.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, None))
    assert use_native_attention(model)
    assert use_native_norms(model) == 1
    assert [node.op_type for node in model.graph.node] == ["Split", "GroupQueryAttention"]
