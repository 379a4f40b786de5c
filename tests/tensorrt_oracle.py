"""What the rows that a graph for TensorRT refers to stand for, read from the file by the types' definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flashhead_edge.export.tensorrt_rows import Rows


def float8_values(bits: np.ndarray) -> np.ndarray:
    """float8e4m3fn: a sign, four bits of exponent with bias 7, three of significand."""
    exponent, fraction = (bits >> 3) & 15, (bits & 7).astype(np.float32) / 8
    magnitude = np.where(exponent == 0, fraction * 2.0**-6, (1 + fraction) * 2.0 ** (exponent.astype(np.float32) - 7))
    return np.where(bits >> 7, -magnitude, magnitude).astype(np.float32)


def stored_rows(folder: Path, rows: Rows) -> np.ndarray:
    """[..., H] float32."""
    codes = np.array(rows.codes.read(folder))
    if rows.precision == "fp8":
        values = float8_values(codes).reshape(rows.codes.shape)
    elif rows.precision == "int4":
        halves = np.stack([codes & 15, codes >> 4], axis=-1).astype(np.int8)
        values = np.where(halves > 7, halves - 16, halves).reshape(rows.codes.shape).astype(np.float32)
    else:
        values = codes.astype(np.float32)
    if rows.scales is None:
        return values
    scales = np.array(rows.scales.read(folder)).astype(np.float32)
    if rows.precision != "int4":
        return values * scales[..., None]
    return values * np.repeat(scales, values.shape[-1] // scales.shape[-1], axis=-1)
