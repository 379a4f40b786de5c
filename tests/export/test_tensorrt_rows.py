"""Rows in the precisions of TensorRT, against the types' definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flashhead_edge.errors import OptionError
from flashhead_edge.export.tensor_ref import DataFile
from flashhead_edge.export.tensorrt_rows import (
    CODE_TYPES,
    check_precision,
    float8_bits,
    int4_block,
    quantize_fp8,
    quantize_int4,
    quantize_int8,
    write_rows,
)
from tests.tensorrt_oracle import float8_values, stored_rows

ROWS = hnp.arrays(np.float32, (3, 64), elements=st.floats(-1000, 1000, width=32))


def test_every_float8_survives_and_what_lies_between_goes_to_the_nearer_or_the_even_one() -> None:
    bits = np.array([code for code in range(256) if code & 127 != 127], np.uint8)
    values = float8_values(bits)
    np.testing.assert_array_equal(float8_bits(values), bits)
    positive = np.sort(values[(values >= 0) & ~np.signbit(values)])
    lower, upper = positive[:-1], positive[1:]
    for share, expected in ((0.49, lower), (0.51, upper)):
        np.testing.assert_array_equal(float8_values(float8_bits(lower + (upper - lower) * np.float32(share))), expected)
    assert not (float8_bits((lower + upper) / 2) & 1).any()
    np.testing.assert_array_equal(float8_values(float8_bits(np.array([449, -1e9], np.float32))), [448, -448])


def test_float8_is_onnx_s() -> None:
    """Compared with the conversion of the ONNX package over all of float16."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    values = values[np.abs(values) <= 448]
    np.testing.assert_array_equal(float8_bits(values), values.astype(ml_dtypes.float8_e4m3fn).view(np.uint8))


@settings(max_examples=50, deadline=None)
@given(rows=ROWS)
def test_errors_are_at_most_half_a_step(rows: np.ndarray) -> None:
    # Rows, or blocks, whose numbers are so small that their scale would be zero become zero.
    int8, scales = quantize_int8(rows)
    assert (scales > 0).all()
    assert np.abs(int8).max() <= 127
    assert (np.abs(int8 * scales[:, None] - rows) <= scales[:, None] * 0.5001).all()
    fp8, scales = quantize_fp8(rows)
    assert (scales > 0).all()
    found = float8_values(fp8) * scales[:, None]
    # Four bits of significand; below 2 ** -6, steps of 2 ** -9.
    assert (np.abs(found - rows) <= np.maximum(np.abs(rows) * 2.0**-4, scales[:, None] * 2.0**-10) * 1.001).all()
    int4, blocks = quantize_int4(rows, 32)
    steps = np.repeat(blocks.astype(np.float32), 32, axis=-1)
    assert (blocks > 0).all()
    assert np.abs(int4).max() <= 7
    # A float16 scale may be an eleventh bit too small, or subnormal: the greatest number then saturates.
    filled = int4 != 0
    assert (np.abs(int4 * steps - rows)[filled] <= (steps * 0.51 + 7 * 2.0**-25)[filled]).all()


def test_zeros_stay_zero_and_the_greatest_is_the_last_code() -> None:
    for codes, scales in (
        quantize_int8(np.zeros((2, 3, 64), np.float16)),
        quantize_int4(np.zeros((2, 64), np.float32), 64),
    ):
        assert not codes.any()
        assert (scales == 1).all()
    codes, scales = quantize_int8(np.array([[-2.0, 1.0]], np.float32))
    assert codes.tolist() == [[-127, 64]]
    assert scales == pytest.approx(2 / 127)


@pytest.mark.parametrize("precision", CODE_TYPES)
@pytest.mark.parametrize("shape", [(5, 64), (7, 3, 128)])
def test_written_rows_are_the_quantizers(
    tmp_path: Path, precision: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of a few rows, read back from the file."""
    monkeypatch.setattr("flashhead_edge.export.tensorrt_rows._AT_ONCE", 512)
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with DataFile(tmp_path / "rows.data") as data:
        written = write_rows(data, "rows", rows, precision)  # type: ignore[arg-type]
    assert written.codes.dtype == CODE_TYPES[precision]
    found = stored_rows(tmp_path, written)
    step = {"fp32": 0.0, "fp16": 1e-3, "int8": 0.02, "fp8": 0.25, "int4": 0.4}[precision]
    assert np.abs(found - rows).max() <= step


@pytest.mark.parametrize(("width", "block"), [(640, 128), (576, 64), (2048, 128), (64, 64)])
def test_blocks(width: int, block: int) -> None:
    assert int4_block(width) == block


def test_a_width_that_no_block_divides() -> None:
    with pytest.raises(OptionError, match="hidden size in int4") as caught:
        int4_block(100)
    assert caught.value.found == 100


def test_unknown_precisions_are_guessed() -> None:
    with pytest.raises(OptionError, match="did you mean 'int8'"):
        check_precision("centroid", "int-8", ("int8", "fp16"))
