"""Rows as TensorRT reads them: plain, or codes with scales that are positive and a zero point of zero.

==========  ========================  ============================================  ==================
precision   codes [..., H]            scales                                        a row is
==========  ========================  ============================================  ==================
fp32, fp16  float32, float16          none                                          the codes
int8        int8, -127 to 127         float32 [...], one a row                      scale x code
fp8         float8e4m3fn, to +-448    float32 [...], one a row                      scale x code
int4        int4, -7 to 7             [..., H / block], block 128 or 64             scale x code, by block
==========  ========================  ============================================  ==================

Block sizes of int4, symmetry and packing (two codes a byte, the first in the low half): "Explicit Quantization" in
NVIDIA's TensorRT documentation. float8e4m3fn: https://onnx.ai/onnx/technical/float8.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionError, did_you_mean
from flashhead_edge.export.tensor_ref import DataFile, TensorRef

RowPrecision = Literal["fp32", "fp16", "int8", "fp8", "int4"]

#: ONNX type of the codes.
CODE_TYPES: dict[str, str] = {
    "fp32": "float32",
    "fp16": "float16",
    "int8": "int8",
    "fp8": "float8e4m3fn",
    "int4": "int4",
}
#: The first opset whose DequantizeLinear reads the codes; 17 is TensorRT 8.6's last.
OPSETS: dict[str, int] = {"fp32": 17, "fp16": 17, "int8": 17, "fp8": 19, "int4": 21}
#: Blocks of int4 that TensorRT reads, the cheaper first.
INT4_BLOCKS = (128, 64)
_GREATEST_FP8 = np.float32(448)
_AT_ONCE = 1 << 22  # numbers converted at a time


@dataclass(frozen=True)
class Rows:
    """Rows in a data file.

    Attributes:
        precision: How they are stored.
        codes: [..., H].
        scales: One a row [...], or one a block [..., H / block]; None for plain rows.
    """

    precision: RowPrecision
    codes: TensorRef
    scales: TensorRef | None = None


def int4_block(width: int) -> int:
    """Numbers that share a scale in int4.

    Raises:
        OptionError: No block that TensorRT reads divides the hidden size.
    """
    for block in INT4_BLOCKS:
        if width % block == 0:
            return block
    raise OptionError(
        "TensorRT cannot hold rows of this hidden size in int4.",
        found=width,
        expected=f"a multiple of {INT4_BLOCKS[-1]} (its smallest block)",
        hint="choose int8",
    )


def check_precision(what: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a precision that a part of the head cannot have.

    Raises:
        OptionError: Says what it can have.
    """
    if value not in known:
        raise OptionError(f"There is no {what} precision {value!r} for TensorRT.", hint=did_you_mean(value, known))


def write_rows(
    data: DataFile,
    name: str,
    rows: npt.NDArray[np.floating],
    precision: RowPrecision,
    *,
    block_scales: Literal["float32", "float16"] = "float32",
    factors: npt.NDArray[np.float32] | None = None,
) -> Rows:
    """Append rows in a precision, a few MB at a time.

    Args:
        data: Where they go.
        name: Name of the codes; the scales' is the same with ``.scales`` added.
        rows: [..., H] float16 or float32.
        precision: How to store them.
        block_scales: Type of the scales of int4, which is the type that DequantizeLinear makes of the rows; the numbers
            are float16's in both.
        factors: [H], multiplied onto every row first.

    Raises:
        OptionError: int4 does not fit the hidden size.
    """
    width, shape = rows.shape[-1], rows.shape
    step = max(1, _AT_ONCE // max(1, int(np.prod(shape[1:]))))
    parts = (rows[start : start + step] for start in range(0, len(rows), step))
    if factors is not None:
        parts = (part * factors for part in parts)
    dtype = CODE_TYPES[precision]
    if precision in ("fp32", "fp16"):
        plain = (np.asarray(part).astype(dtype) for part in parts)
        return Rows(precision, data.append_chunks(name, plain, dtype=dtype, shape=shape))
    scales: list[npt.NDArray[np.floating]] = []
    codes = data.append_chunks(name, _codes(parts, _quantizer(precision, width), scales), dtype=dtype, shape=shape)
    joined = np.concatenate(scales)
    if precision == "int4":
        joined = joined.astype(block_scales)
    return Rows(precision, codes, data.append(f"{name}.scales", joined))


_Quantizer = Callable[[npt.NDArray[np.floating]], tuple[npt.NDArray[np.generic], npt.NDArray[np.floating]]]


def _quantizer(precision: RowPrecision, width: int) -> _Quantizer:
    if precision == "int8":
        return quantize_int8
    if precision == "fp8":
        return quantize_fp8
    block = int4_block(width)

    def packed(rows: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.floating]]:
        codes, scales = quantize_int4(rows, block)
        low, high = codes[..., 0::2], codes[..., 1::2]
        return (low & 15).astype(np.uint8) | ((high & 15).astype(np.uint8) << 4), scales

    return packed


def _codes(
    parts: Iterator[npt.NDArray[np.floating]], quantize: _Quantizer, scales: list[npt.NDArray[np.floating]]
) -> Iterator[npt.NDArray[np.generic]]:
    """Codes of every part; their scales are collected."""
    for part in parts:
        codes, found = quantize(part)
        scales.append(found)
        yield codes


def quantize_int8(rows: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round rows to int8 with one scale a row: ``row ~ scale * code``.

    Args:
        rows: [..., H] float16 or float32.

    Returns:
        Codes [..., H], from -127 to 127, and scales [...] float32, which are positive: 1 for a row of zeros.
    """
    wide, scales, inverse = _row_scales(rows, np.float32(127))
    return np.rint(wide * inverse[..., None]).astype(np.int8), scales


def quantize_fp8(rows: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Round rows to float8e4m3fn with one scale a row: ``row ~ scale * code``.

    Args:
        rows: [..., H] float16 or float32.

    Returns:
        The codes' bits [..., H], and scales [...] float32, which are positive: 1 for a row of zeros.
    """
    wide, scales, inverse = _row_scales(rows, _GREATEST_FP8)
    return float8_bits(wide * inverse[..., None]), scales


def quantize_int4(rows: npt.NDArray[np.floating], block: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """Round rows to int4 with one float16 scale a block: ``row ~ scale * code``.

    Args:
        rows: [..., H] float16 or float32.
        block: Numbers that share a scale; divides H.

    Returns:
        Codes [..., H], from -7 to 7 and not packed, and scales [..., H / block], which are positive: 1 for a block of
        zeros, or of numbers too small for a float16 scale.
    """
    wide = rows.astype(np.float32).reshape(*rows.shape[:-1], -1, block)
    scales = (np.abs(wide).max(axis=-1) / np.float32(7)).astype(np.float16)
    empty = scales == 0
    scales[empty] = 1
    codes = np.clip(np.rint(wide / scales[..., None].astype(np.float32)), -7, 7)
    codes[empty] = 0
    return codes.astype(np.int8).reshape(rows.shape), scales


def float8_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Bits of the nearest float8e4m3fn, ties to even, saturating at 448; NaN has no place here."""
    magnitude = np.minimum(np.abs(values), _GREATEST_FP8)
    _, exponent = np.frexp(magnitude)  # magnitude = m * 2 ** exponent, 0.5 <= m < 1
    exponent = np.where(magnitude == 0, -6, np.maximum(exponent - 1, -6))  # below 2 ** -6 the spacing stays
    steps = np.rint(np.ldexp(magnitude, 3 - exponent)).astype(np.int32)  # 8 to 16, or 0 to 8 at the bottom
    # A carry to 16 moves into the exponent's bits by itself, as a step of 8 does from the subnormal numbers.
    bits = steps + ((exponent + 6) << 3)
    signs = np.signbit(values).astype(np.int32) << 7
    return np.asarray(bits | signs, np.uint8)


def _row_scales(
    rows: npt.NDArray[np.floating], greatest: np.float32
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Rows in float32, a scale for each that makes its greatest number ``greatest``, and that scale's inverse.

    The scale of a row of zeros is 1, as TensorRT takes positive scales only, and its inverse 0. Subnormal scales count
    as zero: their inverse would overflow.
    """
    wide = rows.astype(np.float32)
    scales = np.abs(wide).max(axis=-1) / greatest
    empty = scales < np.finfo(np.float32).tiny
    scales[empty] = 1
    return wide, scales, np.where(empty, np.float32(0), np.float32(1) / scales)
