"""Low-bit products of the native library: against an oracle, ONNX Runtime's, and bit for bit against themselves."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from flashhead_edge import native
from flashhead_edge.export.native_products import use_native_products
from flashhead_edge.runtimes.session import open_session
from tests.native.conftest import KERNELS
from tests.native.tiny_products import Products, Weight, open_products, product_graph, random_weight
from tests.tiny_heads import random_states

#: Of gemma3-270m and smollm2, and some that fit no tile.
SHAPES = [(2048, 640), (640, 2048), (576, 576), (37, 96), (17, 640), (5, 64), (1, 32), (16, 100), (33, 1), (19, 1063)]


def numbers(packed: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.float64]:
    """Codes or zero points one by one, [N, count]."""
    flat = packed.reshape(len(packed), -1)
    if bits == 4:
        flat = np.stack([flat & 15, flat >> 4], axis=-1).reshape(len(packed), -1)
    return flat[:, :count].astype(np.float64)


def oracle(weight: Weight, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """What the operator stands for, in float64: states rounded to 8 bits by block, times the weight."""
    blocks = weight.scales.shape[1]
    padded = np.zeros((len(states), blocks * 32))
    padded[:, : weight.width] = states
    parts = padded.reshape(len(states), blocks, 32)
    scales = np.abs(parts).max(axis=2, keepdims=True) / 127
    rounded = np.rint(np.divide(parts, scales, out=np.zeros_like(parts), where=scales > 0)) * scales
    codes = numbers(weight.codes, weight.bits, blocks * 32).reshape(len(weight.codes), blocks, 32)
    zeros = np.full((1, blocks), 1 << (weight.bits - 1))
    if weight.zeros is not None:
        zeros = numbers(weight.zeros, weight.bits, blocks)
    dense = (codes - zeros[..., None]) * weight.scales[..., None].astype(np.float64)
    return rounded.reshape(len(states), -1) @ dense.reshape(len(dense), -1).T


@pytest.mark.parametrize("zeros", [True, False], ids=["zeros", "symmetric"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_the_oracles_and_onnx_runtimes(
    shape: tuple[int, int], bits: int, zeros: bool, kernels: str
) -> None:
    weight = random_weight(*shape, bits, zeros=zeros)
    states = random_states(7, shape[1])
    found = Products(weight, threads=2)(states)
    expected = oracle(weight, states)
    size = np.abs(expected).max() or 1
    # A number that lies halfway between two codes may be rounded either way: one step of one of K.
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5 * size)
    if shape[1] % 32 == 0:
        # On 64-bit ARM, ONNX Runtime rounds the whole state by one scale where a weight has no zero points.
        apart = 3e-5 if platform.machine() == "x86_64" else 3e-2
        np.testing.assert_allclose(found, Products(weight, ours=False)(states), rtol=0, atol=apart * size)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_row_has_the_same_bits_alone_among_others_on_any_threads_and_kernels(data: st.DataObject) -> None:
    rows, width = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 300))
    count = data.draw(st.integers(1, 140))
    weight = random_weight(rows, width, data.draw(st.sampled_from([4, 8])), zeros=data.draw(st.booleans()))
    states = random_states(count, width) * np.float32(data.draw(st.sampled_from([1e-20, 1, 1e20])))
    threads = data.draw(st.integers(1, 3))
    products = Products(weight, threads=threads)
    expected = Products(weight)(states)
    try:
        for name in KERNELS:
            native.use_kernels(name)
            np.testing.assert_array_equal(products(states), expected)
            begin = 0
            while begin < count:
                end = min(count, begin + data.draw(st.integers(1, 20)))
                np.testing.assert_array_equal(products(states[begin:end]), expected[begin:end])
                begin = end
    finally:
        native.use_kernels(None)


def test_more_states_than_are_rounded_at_once(kernels: str) -> None:
    weight, states = random_weight(40, 70, 4), random_states(1100, 70)
    found = Products(weight, threads=2)(states)
    np.testing.assert_array_equal(found[[0, 511, 512, 1099]], Products(weight)(states[[0, 511, 512, 1099]]))


def test_states_of_any_rank() -> None:
    weight = random_weight(40, 64, 4)
    states = random_states(6, 64)
    expected = Products(weight)(states)
    np.testing.assert_array_equal(Products(weight, rank=3)(states.reshape(2, 3, 64)), expected.reshape(2, 3, 40))
    np.testing.assert_array_equal(Products(weight, rank=1)(states[0]), expected[0])
    assert Products(weight)(states[:0]).shape == (0, 40)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_not_a_number_stays_one_in_its_own_row(number: float, kernels: str) -> None:
    weight = random_weight(40, 96, 8)
    states = random_states(3, 96)
    states[1, 40] = number
    found = Products(weight)(states)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()


def test_states_of_nothing_and_next_to_nothing_give_nothing(kernels: str) -> None:
    weight = random_weight(40, 64, 4)
    for size in (0.0, 1e-44, 1e-38):
        found = Products(weight)(np.full((2, 64), size, np.float32))
        assert np.abs(found).max() <= 64 * 16 * size * 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": 60}, "A is not"),
        ({"N": 41}, "B is not"),
        ({"N": 0}, "K or N is out of range"),
        ({"bits": 8}, "B is not"),
        ({"bits": 2}, "neither 4 nor 8"),
        ({"block_size": 64}, "block_size is not 32"),
        ({"codes": [20, 4, 16]}, "B is not"),
        ({"scales": [40, 1]}, "scales are not"),
        ({"zeros": [39, 1]}, "zero_points are not"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_an_error(change: dict[str, Any], message: str) -> None:
    """Of a graph that no exporter writes."""
    model = product_graph(random_weight(40, 64, 4))
    use_native_products(model)
    for attribute in model.graph.node[0].attribute:
        if attribute.name in change:
            attribute.i = change[attribute.name]
    for tensor in model.graph.initializer:
        if tensor.name in change:
            size = int(np.prod(change[tensor.name])) * (2 if tensor.name == "scales" else 1)
            tensor.raw_data = bytes(size)
            del tensor.dims[:]
            tensor.dims.extend(change[tensor.name])
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    with pytest.raises(Exception, match=message):
        open_products(model).run(None, {"states": np.zeros((1, 64), np.float32)})


def anonymous_bytes() -> int:
    """Memory of this process that is no file's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def test_weights_stay_in_the_file(tmp_path: Path) -> None:
    weight = random_weight(4096, 16384, 8)
    model = product_graph(weight)
    assert use_native_products(model) == 1
    graph = tmp_path / "product.native.onnx"
    onnx.save(model, graph, save_as_external_data=True, location="product.data", size_threshold=0)
    states, size = random_states(1, weight.width), weight.codes.nbytes
    expected = Products(weight)(states)
    before = anonymous_bytes()
    session = open_session(graph, threads=1)
    np.testing.assert_array_equal(session.run(None, {"states": states})[0], expected)
    assert anonymous_bytes() - before < size // 4
    assert str(tmp_path / "product.data") in Path("/proc/self/maps").read_text()


class TestConversion:
    """Which products the native library takes."""

    @pytest.mark.parametrize(
        "change", ["level", "2 bits", "block", "order", "bias", "float scales", "float zeros", "computed"]
    )
    def test_what_it_does_not_do_stays(self, change: str) -> None:
        model = product_graph(random_weight(40, 64, 4), accuracy_level=1 if change == "level" else 4)
        node = model.graph.node[-1]
        sizes = {"2 bits": ("bits", 2), "block": ("block_size", 64)}
        if change in sizes:
            name, size = sizes[change]
            next(attribute for attribute in node.attribute if attribute.name == name).i = size
        elif change in ("order", "bias"):
            node.input.extend(["", change][-1 if change == "order" else 0 :])
        elif change == "float scales":
            model.graph.initializer[1].data_type = TensorProto.FLOAT
        elif change == "float zeros":
            model.graph.initializer[2].data_type = TensorProto.FLOAT
        elif change == "computed":
            del model.graph.initializer[0]
        before = model.SerializeToString()
        assert use_native_products(model) == 0
        assert model.SerializeToString() == before

    def test_one_node_of_two(self) -> None:
        model = product_graph(random_weight(64, 64, 4))
        other = onnx.NodeProto()
        other.CopyFrom(model.graph.node[-1])
        other.output[0] = "other"
        other.attribute.append(helper.make_attribute("accuracy_level", 1))
        other.attribute.remove(next(a for a in other.attribute if a.name == "accuracy_level" and a.i == 4))
        model.graph.node.append(other)
        assert use_native_products(model) == 1
        assert [node.domain for node in model.graph.node] == ["", "flashhead_edge", "com.microsoft"]
        assert use_native_products(model) == 0
