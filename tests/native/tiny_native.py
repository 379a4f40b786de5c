"""Small native heads: the graph for the library beside the portable one, over the same data file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from flashhead_edge import layout
from flashhead_edge.export.head_graph import HeadTables, two_stage_graph
from flashhead_edge.export.native_graph import native_head_graph
from flashhead_edge.export.tensor_ref import DataFile
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.lm_head import LmHead
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.runtimes.base import HeadShape
from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
from tests.tiny_heads import table_rows, write_tables


def with_low_bit_rows(folder: Path, tables: HeadTables, head: LmHead, index: HeadIndex, bits: int) -> HeadTables:
    """The tables with low-bit rows in a data file of their own."""
    rows = table_rows(head, index)
    quantized = quantize_rows(rows.reshape(-1, head.hidden_size), bits)
    with DataFile(folder / "low_bit.data") as data:
        codes = data.append(layout.LOW_BIT_CODES, quantized.codes.reshape(*rows.shape[:2], *quantized.codes.shape[1:]))
        scales = data.append(layout.LOW_BIT_SCALES, quantized.scales.reshape(*rows.shape[:2], -1))
    return replace(tables, low_bit_codes=codes, low_bit_scales=scales)


def native_and_portable(
    folder: Path,
    head: LmHead,
    index: HeadIndex,
    num_probes: int,
    *,
    centroids: str = "fp32",
    rows: str = "float32",
    low_bits: int | None = None,
    num_rescored: int = 64,
    threads: int | None = None,
) -> tuple[OnnxRuntimeHead, OnnxRuntimeHead]:
    """The same head on the native library and on standard operators."""
    folder.mkdir(parents=True)
    tables = write_tables(folder, head, index, num_probes, centroids=centroids, rows=rows)
    onnx.save(two_stage_graph(tables), folder / layout.HEAD_GRAPH)
    if low_bits is not None:
        tables = with_low_bit_rows(folder, tables, head, index, low_bits)
    onnx.save(native_head_graph(tables, num_rescored=num_rescored), folder / layout.NATIVE_HEAD_GRAPH)
    shape = HeadShape(
        head.vocab_size,
        head.hidden_size,
        index.num_clusters,
        index.cluster_size,
        num_probes,
        index.num_candidates(num_probes),
    )
    files = (layout.NATIVE_HEAD_GRAPH, layout.HEAD_GRAPH)
    native, portable = (OnnxRuntimeHead(folder / file, shape, threads=threads) for file in files)
    return native, portable


def greedy_of(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The lowest id among the greatest logits, [B]."""
    best = logits == logits.max(axis=1, keepdims=True)
    return np.where(best, ids, np.iinfo(np.int64).max).min(axis=1)
