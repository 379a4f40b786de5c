"""Block-wise symmetric quantization as ONNX Runtime's MatMulNBits reads it.

Each row is cut into blocks of 32 numbers that share a scale: ``row ~ scale * (code - 2 ** (bits - 1))``. The scale is
signed and chosen so that the block's greatest magnitude is code 0, which int4 can represent and its negative cannot.
Scales are half-precision: a ninth of the bytes of int4 rows, with float32 it would be a fifth.
Layout: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#commicrosoftmatmulnbits
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import WeightError

BLOCK_SIZE = 32


@dataclass(frozen=True)
class QuantizedRows:
    """Rows in blocks of low-bit codes.

    Attributes:
        codes: Packed codes, two int4 a byte with the low half first, [N, ceil(H / 32), 16 or 32] uint8.
        scales: One a block, [N, ceil(H / 32)] float16.
        bits: 4 or 8.
        width: H, the unpadded length of a row.
    """

    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float16]
    bits: int
    width: int

    @property
    def byte_size(self) -> int:
        """Bytes of codes and scales."""
        return int(self.codes.nbytes + self.scales.nbytes)

    @property
    def float_scales(self) -> npt.NDArray[np.float32]:
        """The scales widened, [N, ceil(H / 32)] float32."""
        return self.scales.astype(np.float32)

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The rows that the codes stand for, [N, H] float32."""
        codes = self.codes
        if self.bits == 4:
            codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], -1)
        values = (codes.astype(np.float32) - np.float32(1 << (self.bits - 1))) * self.float_scales[..., None]
        return np.ascontiguousarray(values.reshape(len(codes), -1)[:, : self.width])


def stored_int8(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]] | None:
    """Codes and scales of rows that are nothing else: what files of GGUF's type Q8_0 hold.

    A block of 32 numbers is its greatest magnitude divided by 127, times whole numbers; llama.cpp rounds so in
    ``quantize_row_q8_0`` (https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c).

    Args:
        rows: [N, H] float32.

    Returns:
        Codes [N, H] int8 and scales [N, H / 32] float16, whose products are exactly the rows; None for other rows.
    """
    count, width = rows.shape
    if width % BLOCK_SIZE:
        return None
    blocks = rows.reshape(count, width // BLOCK_SIZE, BLOCK_SIZE)
    exact = np.abs(blocks).max(axis=2) / np.float32(127)
    with np.errstate(over="ignore"):
        scales = exact.astype(np.float16)
    if not np.array_equal(scales.astype(np.float32), exact):
        return None
    wide = exact[..., None]
    codes = np.rint(np.divide(blocks, wide, out=np.zeros_like(blocks), where=wide != 0)).astype(np.int8)
    if not np.array_equal(codes * wide, blocks):
        return None
    return codes.reshape(count, width), scales


def split_nibbles(codes: npt.NDArray[np.int8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Halves of int8 codes: the high ones alone stand for the codes within 8.

    Args:
        codes: [..., H] int8; H is a multiple of 32.

    Returns:
        High and low nibbles of the codes plus 128, [..., H / 32, 16] uint8 each: two to a byte, the first 16 of a block
        in the low halves of its bytes.
    """
    shape = (*codes.shape[:-1], codes.shape[-1] // BLOCK_SIZE, BLOCK_SIZE)
    moved = (codes.view(np.uint8) ^ np.uint8(128)).reshape(shape)
    first, last = moved[..., : BLOCK_SIZE // 2], moved[..., BLOCK_SIZE // 2 :]
    return (first >> 4) | (last & 240), (first & 15) | (last << 4)


def high_nibbles(rows: QuantizedRows) -> npt.NDArray[np.uint8]:
    """The high halves of codes of 8 bits, [N, blocks, 16] uint8; see :func:`split_nibbles`."""
    return split_nibbles((rows.codes ^ np.uint8(128)).view(np.int8))[0][:, :, 0]


def join_nibbles(high: npt.NDArray[np.uint8], low: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Codes [..., H] int8 from what :func:`split_nibbles` made of them."""
    codes = np.empty((*high.shape[:-1], BLOCK_SIZE), np.uint8)
    half = BLOCK_SIZE // 2
    np.bitwise_or(high << 4, low & 15, out=codes[..., :half])
    np.bitwise_or(high & 240, low >> 4, out=codes[..., half:])
    codes ^= 128
    return codes.view(np.int8).reshape(*high.shape[:-2], high.shape[-2] * BLOCK_SIZE)


def half_precision(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scales as float16 has them.

    Raises:
        WeightError: One does not fit.
    """
    greatest = np.abs(scales).max(initial=0)
    if greatest > np.finfo(np.float16).max:
        raise WeightError(
            "The scale of a quantized block does not fit into half precision.",
            found=f"{greatest:.3g}",
            expected=f"at most {np.finfo(np.float16).max:.0f}",
        )
    return scales.astype(np.float16).astype(np.float32)


def quantize_rows(rows: npt.NDArray[np.float32], bits: int, *, chunk: int = 16384) -> QuantizedRows:
    """Round rows to the nearest codes, block by block.

    Args:
        rows: [N, H] float32.
        bits: 4 or 8.
        chunk: Rows handled at a time, which bounds the extra memory.

    Returns:
        Codes and scales; the last block of a row is padded with zeros.

    Raises:
        WeightError: A scale does not fit into half precision.
    """
    count, width = rows.shape
    blocks = -(-width // BLOCK_SIZE)
    codes = np.empty((count, blocks, BLOCK_SIZE * bits // 8), dtype=np.uint8)
    scales = np.empty((count, blocks), dtype=np.float16)
    middle, top = np.float32(1 << (bits - 1)), np.float32((1 << bits) - 1)
    for start in range(0, count, chunk):
        part = rows[start : start + chunk]
        padded = np.zeros((len(part), blocks * BLOCK_SIZE), dtype=np.float32)
        padded[:, :width] = part
        block = padded.reshape(len(part), blocks, BLOCK_SIZE)
        largest = np.take_along_axis(block, np.abs(block).argmax(axis=2, keepdims=True), axis=2)
        scale = half_precision(largest / -middle)
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0)
        code = np.clip(np.rint(block * inverse + middle), 0, top).astype(np.uint8)
        codes[start : start + chunk] = code if bits == 8 else code[..., 0::2] | (code[..., 1::2] << 4)
        scales[start : start + chunk] = scale[..., 0]
    return QuantizedRows(codes, scales, bits, width)
