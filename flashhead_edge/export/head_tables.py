"""Writes a head's tensors into ``head.onnx.data``: the vocabulary once, in the order of the clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout
from flashhead_edge.errors import WeightError
from flashhead_edge.export.head_graph import HeadTables
from flashhead_edge.export.stored_centroids import StoredCentroids
from flashhead_edge.export.stored_rows import StoredRows
from flashhead_edge.export.tensor_ref import DataFile, TensorRef
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.lm_head import LmHead
from flashhead_edge.quantize import BLOCK_SIZE, quantize_rows, split_nibbles, stored_int8
from flashhead_edge.runtimes.reference import CENTROID_BITS

#: How rows are stored where nothing is asked for: as int8 where that is all they hold, else "fp16".
AUTO = "auto"
_INT8 = "int8"
_ROW_DTYPES = {AUTO: "float16", "fp16": "float16", "fp32": "float32"}
_SLOTS_AT_ONCE = 16384


@dataclass(frozen=True)
class WrittenHead:
    """Where a head's tensors lie.

    Attributes:
        tables: What the graphs need.
        slot_of_token: ``head.slot_of_token`` [V] int32, for the embedding of a tied model.
        cluster_precision: Of the rows: "fp16", "fp32" or "int8".
    """

    tables: HeadTables
    slot_of_token: TensorRef
    cluster_precision: str


def write_head_data(
    folder: Path,
    head: LmHead,
    index: HeadIndex,
    *,
    num_probes: int,
    centroid_precision: str,
    cluster_precision: str,
    low_bit_rows: str | None = None,
) -> WrittenHead:
    """Write ``head.onnx.data``.

    Args:
        folder: The bundle.
        head: The dense head.
        index: Its index.
        num_probes: P.
        centroid_precision: "int4", "int8" or "fp32".
        cluster_precision: "fp16" or "fp32"; or "auto": int8 codes with a scale for every 32 numbers where the rows are
            nothing else (:func:`~flashhead_edge.quantize.stored_int8`) and no low-bit rows are wanted, else "fp16".
        low_bit_rows: "int8" or "int4" for a second copy of the rows in that precision, or None.

    Returns:
        References to everything written.

    Raises:
        WeightError: A row does not fit into half precision.
    """
    order = index.token_order
    precision = cluster_precision
    if precision == AUTO:
        precision = _INT8 if low_bit_rows is None and _are_int8(head.rows) else "fp16"
    with DataFile(folder / layout.HEAD_DATA) as data:
        rows = _append_rows(data, head, order, precision)
        token_order = data.append(layout.TOKEN_ORDER, order)
        slots = data.append(layout.SLOT_OF_TOKEN, index.slot_of_token)
        row_bias = None
        if head.bias is not None:
            row_bias = data.append(layout.ROW_BIAS, np.where(order < 0, np.float32(0), head.bias[order]))
        projection = None
        if index.projection is not None:
            projection = data.append("head.projection", np.ascontiguousarray(index.projection))
        centroids = StoredCentroids.write(data, index.narrow_centroids, CENTROID_BITS[centroid_precision])
        bias = data.append("head.centroid_bias", index.centroid_bias)
        offset = data.append("head.selection_offset", index.selection_offset)
        codes_and_scales = None
        if low_bit_rows is not None:
            codes_and_scales = _append_low_bit_rows(data, head, order, CENTROID_BITS[low_bit_rows])
    tables = HeadTables(
        rows=rows,
        token_order=token_order,
        row_bias=row_bias,
        centroids=centroids,
        centroid_bias=bias,
        selection_offset=offset,
        num_probes=num_probes,
        num_clusters=index.num_clusters,
        logit_scale=head.logit_scale,
        logit_softcap=head.logit_softcap,
        low_bit_codes=codes_and_scales and codes_and_scales[0],
        low_bit_scales=codes_and_scales and codes_and_scales[1],
        projection=projection,
    )
    return WrittenHead(tables, slots, precision)


def write_embedding_data(folder: Path, rows: npt.NDArray[np.float32], cluster_precision: str) -> TensorRef:
    """Write the input embedding [V, H] of a model whose head is not tied, "auto" as "fp16"."""
    dtype = _ROW_DTYPES[cluster_precision]
    with DataFile(folder / layout.EMBEDDING_DATA) as data:
        chunks = (_narrow(rows[i : i + _SLOTS_AT_ONCE], dtype) for i in range(0, len(rows), _SLOTS_AT_ONCE))
        return data.append_chunks(layout.EMBEDDING_ROWS, chunks, dtype=dtype, shape=rows.shape)


def _are_int8(rows: npt.NDArray[np.float32]) -> bool:
    """Whether int8 codes and a scale for every block are all that the rows hold."""
    parts = (rows[start : start + _SLOTS_AT_ONCE] for start in range(0, len(rows), _SLOTS_AT_ONCE))
    return all(stored_int8(part) is not None for part in parts)


def _append_rows(data: DataFile, head: LmHead, order: npt.NDArray[np.int32], precision: str) -> StoredRows:
    """Write the rows in the order of the slots: floats, or of int8 codes high nibbles, low nibbles and scales."""
    width = head.hidden_size
    if precision != _INT8:
        dtype = _ROW_DTYPES[precision]
        rows = _ordered_rows(head, order.ravel(), dtype)
        return StoredRows(data.append_chunks(layout.ROWS, rows, dtype=dtype, shape=(*order.shape, width)))
    scales: list[npt.NDArray[np.float16]] = []
    low_nibbles: list[npt.NDArray[np.uint8]] = []

    def high_nibbles() -> Iterator[npt.NDArray[np.uint8]]:
        for part in _ordered_rows(head, order.ravel(), "float32"):
            stored = stored_int8(part.astype(np.float32, copy=False))
            assert stored is not None
            high, low = split_nibbles(stored[0])
            low_nibbles.append(low)
            scales.append(stored[1])
            yield high

    halves = (*order.shape, width // BLOCK_SIZE, BLOCK_SIZE // 2)
    high = data.append_chunks(layout.HIGH_NIBBLES, high_nibbles(), dtype="uint8", shape=halves)
    low = data.append_chunks(layout.LOW_NIBBLES, low_nibbles, dtype="uint8", shape=halves)
    blocks = (*order.shape, width // BLOCK_SIZE)
    return StoredRows(high, low, data.append_chunks(layout.ROW_SCALES, scales, dtype="float16", shape=blocks))


def _append_low_bit_rows(
    data: DataFile, head: LmHead, order: npt.NDArray[np.int32], bits: int
) -> tuple[TensorRef, TensorRef]:
    """Write codes and scales of all rows in the order of the slots, a few rows at a time."""
    blocks = -(-head.hidden_size // BLOCK_SIZE)
    scales: list[npt.NDArray[np.float16]] = []

    def codes() -> Iterator[npt.NDArray[np.uint8]]:
        for rows in _ordered_rows(head, order.ravel(), "float32"):
            quantized = quantize_rows(rows.astype(np.float32, copy=False), bits)
            scales.append(quantized.scales)
            yield quantized.codes

    shape = (*order.shape, blocks, BLOCK_SIZE * bits // 8)
    written = data.append_chunks(layout.LOW_BIT_CODES, codes(), dtype="uint8", shape=shape)
    return written, data.append_chunks(layout.LOW_BIT_SCALES, scales, dtype="float16", shape=shape[:3])


def _ordered_rows(head: LmHead, order: npt.NDArray[np.int32], dtype: str) -> Iterator[npt.NDArray[np.generic]]:
    """Rows in the order of the slots, zeros in empty ones."""
    for start in range(0, len(order), _SLOTS_AT_ONCE):
        ids = order[start : start + _SLOTS_AT_ONCE]
        rows = head.rows[ids]
        rows[ids < 0] = 0
        yield _narrow(rows, dtype)


def _narrow(rows: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.generic]:
    """Convert rows, refusing those whose numbers would become infinite."""
    if dtype == "float16" and np.abs(rows).max(initial=0) > np.finfo(np.float16).max:
        raise WeightError(
            "A row of the head does not fit into half precision.",
            found=f"a weight of {np.abs(rows).max():.3g}",
            expected=f"at most {np.finfo(np.float16).max:.0f}",
            hint="export with --cluster-precision fp32",
        )
    return rows.astype(dtype)
