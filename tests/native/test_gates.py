"""Gated products of the native library: what the nodes computed that they take the place of, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from flashhead_edge import native
from flashhead_edge.export.native_gates import use_native_gates
from flashhead_edge.export.native_products import use_native_products
from tests.native.conftest import KERNELS
from tests.native.tiny_products import Weight, open_products, random_weight
from tests.tiny_heads import random_states

SHAPES = [(2048, 640), (1536, 576), (37, 96), (5, 64), (1, 32), (33, 1), (100, 1063)]


def gated_graph(gate: Weight, up: Weight, activation: str, *, swapped: bool = False) -> onnx.ModelProto:
    """Both products by ONNX Runtime's operator, states [N, K] to gated [N, rows]."""
    tensors, nodes = [], []
    for name, weight in (("gate", gate), ("up", up)):
        found = {"codes": weight.codes, "scales": weight.scales, "zeros": weight.zeros}
        given = {f"{name}.{part}": array for part, array in found.items() if array is not None}
        wide = f"{name}.scales.wide"
        nodes.append(helper.make_node("Cast", [f"{name}.scales"], [wide], to=TensorProto.FLOAT))
        for part, array in given.items():
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            tensors.append(helper.make_tensor(part, kind, array.shape, array.tobytes(), raw=True))
        sizes = {"K": weight.width, "N": len(weight.codes), "bits": weight.bits, "block_size": 32}
        inputs = ["states", *(wide if part.endswith(".scales") else part for part in given)]
        nodes.append(helper.make_node("MatMulNBits", inputs, [name], domain="com.microsoft", accuracy_level=4, **sizes))
    if activation == "silu":
        nodes.append(helper.make_node("Sigmoid", ["gate"], ["logistic"]))
        nodes.append(helper.make_node("Mul", ["logistic", "gate"] if swapped else ["gate", "logistic"], ["activated"]))
    else:
        nodes.append(helper.make_node("Gelu", ["gate"], ["activated"], approximate=activation))
    nodes.append(helper.make_node("Mul", ["up", "activated"] if swapped else ["activated", "up"], ["gated"]))
    graph = helper.make_graph(
        nodes,
        "gated",
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["B", gate.width])],
        [helper.make_tensor_value_info("gated", TensorProto.FLOAT, ["B", len(gate.codes)])],
        tensors,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(model: onnx.ModelProto, states: npt.NDArray[np.float32], *, threads: int = 1) -> npt.NDArray[np.float32]:
    gated: npt.NDArray[np.float32] = open_products(model, threads=threads).run(None, {"states": states})[0]
    return gated


def joined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same by the one operator."""
    assert use_native_products(model) == 2
    assert use_native_gates(model) == 1
    assert [node.op_type for node in model.graph.node] == ["GatedMatMulNBits"]
    onnx.checker.check_model(model)
    return model


def weights(shape: tuple[int, int], bits: int = 4, *, zeros: bool = True) -> tuple[Weight, Weight]:
    return random_weight(*shape, bits, zeros=zeros), random_weight(*shape, bits, zeros=not zeros, seed=1)


@pytest.mark.parametrize("activation", ["silu", "tanh"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_what_the_nodes_computed(shape: tuple[int, int], bits: int, activation: str, kernels: str) -> None:
    pair = weights(shape, bits, zeros=bits == 4)
    states = random_states(70, shape[1]) * 0.3
    separate = gated_graph(*pair, activation)
    assert use_native_products(separate) == 2
    expected = run(separate, states)
    found = run(joined(gated_graph(*pair, activation, swapped=True)), states, threads=2)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_all_kernels_give_the_same_bits_and_states_are_alone(activation: str) -> None:
    pair = weights((145, 320))
    states = random_states(130, 320)
    results = []
    for name in KERNELS:
        native.use_kernels(name)
        session = open_products(joined(gated_graph(*pair, activation)), threads=2)
        results.append(session.run(None, {"states": states})[0])
        alone = [session.run(None, {"states": states[i : i + 1]})[0] for i in range(0, 130, 13)]
        np.testing.assert_array_equal(np.concatenate(alone), results[-1][::13])
    native.use_kernels(None)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_activations_of_any_number(activation: str, kernels: str) -> None:
    """One number a state: the gate gives it as it is, the other side 1, so that the activation alone is seen."""
    codes = np.full((1, 1, 32), 128, np.uint8)
    codes[0, 0, 0] = 192
    one = Weight(codes, np.full((1, 1), 1 / 64, np.float16), None, 8, 1)
    values = np.concatenate(
        [np.linspace(-100, 100, 4001), np.geomspace(1e-20, 1e4, 200), -np.geomspace(1e-20, 1e4, 200)]
    )
    values = values.astype(np.float32)[:, None]
    x = values.astype(np.float64)
    cubed = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    with np.errstate(over="ignore"):
        logistic = 1 / (1 + np.exp(-(x if activation == "silu" else 2 * cubed)))
    found = run(joined(gated_graph(one, one, activation)), values)
    np.testing.assert_allclose(found, x * logistic * x, rtol=3e-6, atol=1e-8)
    broken = np.array([[np.nan], [1.0]], np.float32)
    assert np.isnan(run(joined(gated_graph(one, one, activation)), broken)).tolist() == [[True], [False]]


def changed(how: str) -> onnx.ModelProto:
    """A graph that must stay as it is."""
    gate, up = weights((37, 96))
    if how == "other activation":
        return gated_graph(gate, up, "none")
    if how == "other shapes":
        up = random_weight(37, 96, 8)
    model = gated_graph(gate, up, "silu")
    nodes = {node.output[0]: node for node in model.graph.node}
    if how == "other states":
        model.graph.input.append(helper.make_tensor_value_info("others", TensorProto.FLOAT, ["B", 96]))
        nodes["up"].input[0] = "others"
    elif how in ("gate", "activated"):  # wanted by somebody else
        model.graph.output.append(helper.make_tensor_value_info(how, TensorProto.FLOAT, ["B", 37]))
    elif how == "logistic of another":
        nodes["logistic"].input[0] = "up"
    elif how == "rounds nothing":
        level = next(item for item in nodes["up"].attribute if item.name == "accuracy_level")
        level.i = 1
    return model


@pytest.mark.parametrize(
    "how",
    ["other activation", "other shapes", "other states", "gate", "activated", "logistic of another", "rounds nothing"],
)
def test_other_graphs_stay_as_they_are(how: str) -> None:
    model = changed(how)
    use_native_products(model)
    before: list[Any] = [node.SerializeToString(deterministic=True) for node in model.graph.node]
    assert use_native_gates(model) == 0
    assert before == [node.SerializeToString(deterministic=True) for node in model.graph.node]
