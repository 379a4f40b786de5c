"""Residual connections inside the native library's products: what the nodes computed, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flashhead_edge.export.body_graph import tidy_body
from flashhead_edge.export.native_gates import use_native_gates
from flashhead_edge.export.native_products import use_native_products
from flashhead_edge.export.native_residuals import use_native_residuals
from tests.native.test_gates import gated_graph, weights
from tests.native.tiny_products import open_products, product_graph, random_weight

WIDTH = 100


def with_residual(model: onnx.ModelProto, *, branch_norm: bool, swapped: bool = False) -> onnx.ModelProto:
    """The states of a graph's products become the norm of residual and branch, as bodies have it."""
    graph = model.graph
    random = np.random.default_rng(5)
    names = ["norm", "branch_norm"] if branch_norm else ["norm"]
    for name in names:
        graph.initializer.append(numpy_helper.from_array(random.uniform(0.5, 2, WIDTH).astype(np.float32), name))
    nodes, branch = [], "branch"
    if branch_norm:
        branch = "normed_branch"
        nodes.append(
            helper.make_node(
                "SimplifiedLayerNormalization", ["branch", "branch_norm"], [branch], name="b", axis=-1, epsilon=1e-2
            )
        )
    inputs = [branch, "residual"] if swapped else ["residual", branch]
    outputs = ["states", "", "", "sum"]
    nodes.append(
        helper.make_node(
            "SkipSimplifiedLayerNormalization", [*inputs, "norm"], outputs, domain="com.microsoft", epsilon=1e-3
        )
    )
    nodes += graph.node
    shape = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("residual", "branch"))
    graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, shape))
    tidy_body(model, head_dim=1, metadata={})
    return model


def product(*, branch_norm: bool, rank: int = 3, swapped: bool = False) -> onnx.ModelProto:
    return with_residual(
        product_graph(random_weight(50, WIDTH, 4), rank=rank), branch_norm=branch_norm, swapped=swapped
    )


def feeds(*shape: int) -> dict[str, npt.NDArray[np.float32]]:
    random = np.random.default_rng(2)
    return {name: random.normal(size=(*shape, WIDTH)).astype(np.float32) for name in ("residual", "branch")}


def native(model: onnx.ModelProto, *, residuals: int = 1) -> onnx.ModelProto:
    use_native_products(model)
    use_native_gates(model)
    assert use_native_residuals(model) == residuals
    return model


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("branch_norm", [False, True])
def test_a_product_is_what_the_nodes_computed(branch_norm: bool, swapped: bool, kernels: str) -> None:
    separate, joined = (product(branch_norm=branch_norm, swapped=swapped) for _ in range(2))
    use_native_products(separate)
    assert [node.op_type for node in native(joined).graph.node] == ["MatMulNBits"]
    onnx.checker.check_model(joined)
    for shape in ((1, 1), (2, 700)):  # one thread, and two
        found, expected = (
            open_products(model, threads=2).run(["products", "sum"], feeds(*shape)) for model in (joined, separate)
        )
        # A rounding of a state to 8 bits may fall the other way.
        np.testing.assert_allclose(found[0], expected[0], atol=0.01 * np.abs(expected[0]).max())
        assert np.mean(np.abs(found[0] - expected[0]) > 1e-4 * np.abs(expected[0]).max()) < 0.02
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("branch_norm", [False, True])
def test_a_gated_layer_is_what_the_nodes_computed(branch_norm: bool, kernels: str) -> None:
    pair = weights((50, WIDTH))
    separate, joined = (with_residual(gated_graph(*pair, "silu"), branch_norm=branch_norm) for _ in range(2))
    use_native_products(separate)
    assert [node.op_type for node in native(joined).graph.node] == ["GatedMatMulNBits"]
    found, expected = (open_products(model).run(["gated", "sum"], feeds(30)) for model in (joined, separate))
    np.testing.assert_allclose(found[0], expected[0], atol=0.02 * np.abs(expected[0]).max())
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)


def test_a_state_has_the_same_bits_alone() -> None:
    session = open_products(native(product(branch_norm=True)), threads=2)
    both = feeds(1, 300)
    products, sums = session.run(["products", "sum"], both)
    for place in (0, 131, 299):
        one = {name: array[:, place : place + 1] for name, array in both.items()}
        alone = session.run(["products", "sum"], one)
        np.testing.assert_array_equal(alone[0], products[:, place : place + 1])
        np.testing.assert_array_equal(alone[1], sums[:, place : place + 1])


def changed(how: str) -> onnx.ModelProto:
    """A graph whose residual connection must stay."""
    model = product(branch_norm=False)
    nodes = {node.op_type: node for node in model.graph.node}
    skip = nodes["SkipSimplifiedLayerNormalization"]
    if how == "states are wanted elsewhere":
        model.graph.output.append(helper.make_tensor_value_info("states", TensorProto.FLOAT, None))
    elif how == "a bias":
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(WIDTH, np.float32), "bias"))
        skip.input.append("bias")
    elif how == "the mean is wanted":
        skip.output[1] = "mean"
    elif how == "another product":
        nodes["MatMulNBits"].attribute.append(helper.make_attribute("accuracy_level", 1))
        del nodes["MatMulNBits"].attribute[4]
    return model


@pytest.mark.parametrize("how", ["states are wanted elsewhere", "a bias", "the mean is wanted", "another product"])
def test_other_graphs_stay_as_they_are(how: str) -> None:
    model = changed(how)
    use_native_products(model)
    before: list[Any] = [node.SerializeToString(deterministic=True) for node in model.graph.node]
    assert use_native_residuals(model) == 0
    assert before == [node.SerializeToString(deterministic=True) for node in model.graph.node]


@pytest.mark.parametrize(("name", "message"), [("norm", "norm is not"), ("branch_norm", "branch_norm is not")])
def test_what_does_not_fit_is_an_error(name: str, message: str) -> None:
    model = native(product(branch_norm=True))
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(WIDTH - 1, np.float32), name))
    with pytest.raises(Exception, match=message):
        open_products(model).run(None, feeds(1, 1))
