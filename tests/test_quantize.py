"""Block-wise quantization: how far it rounds, and that ONNX Runtime reads the same numbers."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from flashhead_edge.errors import WeightError
from flashhead_edge.quantize import (
    BLOCK_SIZE,
    QuantizedRows,
    join_nibbles,
    quantize_rows,
    split_nibbles,
    stored_int8,
)

BITS = (4, 8)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def blocks_of(rows: np.ndarray) -> np.ndarray:
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % BLOCK_SIZE)))
    return padded.reshape(len(rows), -1, BLOCK_SIZE)


def in_onnx_runtime(quantized: QuantizedRows, states: np.ndarray, *, accuracy_level: int = 1) -> np.ndarray:
    """``states @ rows.T`` by MatMulNBits; level 1 computes in float32, 4 may round the states to int8."""
    node = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        domain="com.microsoft",
        K=quantized.width,
        N=len(quantized.codes),
        bits=quantized.bits,
        block_size=BLOCK_SIZE,
        accuracy_level=accuracy_level,
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [value("x", TensorProto.FLOAT, [None, quantized.width])],
        [value("y", TensorProto.FLOAT, [None, len(quantized.codes)])],
        [numpy_helper.from_array(quantized.codes, "codes"), numpy_helper.from_array(quantized.float_scales, "scales")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": states})[0]


def assert_rounded(rows: np.ndarray, quantized: QuantizedRows) -> None:
    """Each number is off by half a step at most; by a whole one close to the negative of the block's greatest.

    And by what half precision takes from a step, times the code.
    """
    half = 1 << (quantized.bits - 1)
    block, found = blocks_of(rows.astype(np.float64)), blocks_of(quantized.dequantize().astype(np.float64))
    step = np.abs(block).max(axis=2, keepdims=True) / half
    error = np.abs(found - block)
    lost = half * np.maximum(step * 2.0**-11, 2.0**-25)
    largest = np.take_along_axis(block, np.abs(block).argmax(axis=2, keepdims=True), axis=2)
    clipped = -np.sign(largest) * block > (half - 1) * step
    bound = np.where(clipped, 1.0, 0.5) * step * (1 + 1e-3) + lost
    assert (error <= bound).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", [1, 31, 32, 33, 64, 100, 576])
def test_layout_and_bounds(bits: int, width: int) -> None:
    rows = normal(7, width)
    quantized = quantize_rows(rows, bits)
    blocks = -(-width // 32)
    assert quantized.codes.shape == (7, blocks, 4 * bits)
    assert quantized.scales.shape == (7, blocks)
    assert (quantized.codes.dtype, quantized.scales.dtype) == (np.uint8, np.float16)
    assert (quantized.bits, quantized.width) == (bits, width)
    assert quantized.byte_size == 7 * blocks * (4 * bits + 2)
    assert quantized.dequantize().shape == rows.shape
    assert quantized.dequantize().dtype == np.float32
    assert_rounded(rows, quantized)


@pytest.mark.parametrize("bits", BITS)
def test_the_greatest_of_a_block_is_close_and_zero_exact(bits: int) -> None:
    rows = normal(50, 64)
    rows[:, 5] = 0
    found = quantize_rows(rows, bits).dequantize()
    place = np.abs(blocks_of(rows)).argmax(axis=2)[..., None]
    greatest = np.take_along_axis(blocks_of(rows), place, axis=2)
    np.testing.assert_allclose(np.take_along_axis(blocks_of(found), place, axis=2), greatest, rtol=2**-11)
    assert not found[:, 5].any()


@pytest.mark.parametrize("bits", BITS)
def test_multiples_of_the_step_come_back_exactly(bits: int) -> None:
    half = 1 << (bits - 1)
    rows = np.stack([np.arange(-half, half), -np.arange(-half, half)]).astype(np.float32) / 16
    rows = rows.reshape(-1, 16) if bits == 4 else rows[:, :32]
    np.testing.assert_array_equal(quantize_rows(rows, bits).dequantize(), rows)


@pytest.mark.parametrize("bits", BITS)
def test_zero_rows_stay_zero(bits: int) -> None:
    quantized = quantize_rows(np.zeros((2, 40), np.float32), bits)
    assert not quantized.dequantize().any()
    assert not in_onnx_runtime(quantized, normal(1, 40)).any()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e-8, 1e-6, 1e-4, 1e3, 5e5])
def test_very_small_and_very_large_numbers(bits: int, size: float) -> None:
    rows = (np.clip(normal(4, 48), -1, 1) * np.float32(size)).astype(np.float32)
    quantized = quantize_rows(rows, bits)
    assert np.isfinite(quantized.scales).all()
    assert_rounded(rows, quantized)


@pytest.mark.parametrize("bits", BITS)
def test_numbers_beyond_half_precision_are_refused(bits: int) -> None:
    rows = normal(4, 48)
    rows[2, 40] = 1e7
    with pytest.raises(WeightError, match="half precision"):
        quantize_rows(rows, bits)


@pytest.mark.parametrize("shape", [(1, 32), (7, 96), (3, 2, 64), (0, 64)])
def test_nibbles_are_halves_of_codes(shape: tuple[int, ...]) -> None:
    codes = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    high, low = split_nibbles(codes)
    assert high.shape == low.shape == (*shape[:-1], shape[-1] // 32, 16)
    np.testing.assert_array_equal(join_nibbles(high, low), codes)
    assert join_nibbles(high, low).shape == shape
    np.testing.assert_array_equal(high[..., 0, 3] & 15, (codes[..., 3].astype(int) + 128) >> 4)
    np.testing.assert_array_equal(low[..., 0, 3] >> 4, (codes[..., 19].astype(int) + 128) & 15)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("chunk", [1, 3, 10, 11])
def test_chunks_change_nothing(bits: int, chunk: int) -> None:
    rows = normal(10, 40)
    whole, parts = quantize_rows(rows, bits), quantize_rows(rows, bits, chunk=chunk)
    np.testing.assert_array_equal(whole.codes, parts.codes)
    np.testing.assert_array_equal(whole.scales, parts.scales)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=70),
        elements=st.floats(-5e5, 5e5, width=32),
    ),
    bits=st.sampled_from(BITS),
)
def test_any_rows_are_rounded_within_bounds(rows: np.ndarray, bits: int) -> None:
    assert_rounded(rows, quantize_rows(rows, bits))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", [8, 32, 40, 64, 100, 640])
@pytest.mark.parametrize("batch", [1, 5])
def test_onnx_runtime_reads_the_same_rows(bits: int, width: int, batch: int) -> None:
    quantized = quantize_rows(normal(37, width), bits)
    states = normal(batch, width, seed=1)
    expected = states.astype(np.float64) @ quantized.dequantize().astype(np.float64).T
    found = in_onnx_runtime(quantized, states)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * width**0.5)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    count=st.integers(1, 40),
    width=st.integers(1, 130),
    batch=st.integers(1, 16),
    bits=st.sampled_from(BITS),
    seed=st.integers(0, 1000),
)
def test_onnx_runtime_reads_the_same_rows_at_any_shape(
    count: int, width: int, batch: int, bits: int, seed: int
) -> None:
    quantized = quantize_rows(normal(count, width, seed=seed), bits)
    states = normal(batch, width, seed=seed + 1)
    expected = states.astype(np.float64) @ quantized.dequantize().astype(np.float64).T
    np.testing.assert_allclose(in_onnx_runtime(quantized, states), expected, rtol=1e-5, atol=1e-5 * width**0.5)


@pytest.mark.parametrize("bits", BITS)
def test_rounding_the_states_too_stays_close(bits: int) -> None:
    """What the head graph asks for (accuracy level 4): stage 1 may round states to int8 in blocks."""
    quantized = quantize_rows(normal(64, 320), bits)
    states = normal(8, 320, seed=1)
    expected = states @ quantized.dequantize().T
    found = in_onnx_runtime(quantized, states, accuracy_level=4)
    assert np.abs(found - expected).max() < 0.02 * expected.std() * 3


def test_int8_is_finer_than_int4() -> None:
    rows = normal(64, 256)
    coarse, fine = (np.abs(quantize_rows(rows, bits).dequantize() - rows).mean() for bits in BITS)
    assert fine < coarse / 12


def test_rows_of_q8_0_are_recognized_and_kept_exactly() -> None:
    gguf = pytest.importorskip("gguf")
    rows = normal(200, 96) * 0.02
    rows[3, 32:64] = 0
    rows[4] *= 1e-3  # scales of half precision become subnormal
    kind = gguf.GGMLQuantizationType.Q8_0
    packed = gguf.quants.quantize(rows, kind)
    stored_rows = gguf.quants.dequantize(packed, kind)
    stored = stored_int8(stored_rows)
    assert stored is not None
    codes, scales = stored
    blocks = packed.reshape(200, 3, 34)
    np.testing.assert_array_equal(scales.view(np.uint8).reshape(200, 3, 2), blocks[..., :2])
    np.testing.assert_array_equal(codes.reshape(200, 3, 32), blocks[..., 2:].view(np.int8))
    np.testing.assert_array_equal(
        codes.reshape(200, 3, 32) * scales[..., None].astype(np.float32), stored_rows.reshape(200, 3, 32)
    )


@pytest.mark.parametrize("change", ["other rows", "one number", "a scale that half precision lacks", "a broken width"])
def test_other_rows_are_not_taken_for_q8_0(change: str) -> None:
    codes = np.random.default_rng(0).integers(-127, 128, (50, 64)).astype(np.float32)
    codes[:, ::32] = 127
    rows = codes * np.float32(2**-9)
    assert stored_int8(rows) is not None
    if change == "other rows":
        rows = normal(50, 64)
    elif change == "one number":
        rows[49, 63] = np.nextafter(rows[49, 63], np.float32(1))
    elif change == "a scale that half precision lacks":
        rows = codes * np.float32(0.1)
    else:
        rows = rows[:, :63]
    assert stored_int8(rows) is None
