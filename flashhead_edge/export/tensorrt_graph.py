"""The two-stage head as TensorRT fuses it: standard operators, and every precision in the graph (strongly typed).

Both stages are a product and a sum over the hidden size instead of a matrix product, with a row's scale after the sum
and one scalar scale in the DequantizeLinear, which stands before the Gather::

    DequantizeLinear(rows, 1) -- Gather(opened) -- Cast -- Mul(hidden_states) -- ReduceSum -- Mul(Gather(row scales))

In this form TensorRT writes one kernel for gather, dequantization and dot products and makes no copy of the opened
rows. A matrix product makes one; DequantizeLinear after Gather, or with a scale for each row, does not build or is not
fused. Sums are in float32: that many products of int8 numbers can pass the greatest float16. Inputs, outputs and what
they mean are those of ``head.onnx``; the selection and the tail are the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionError, did_you_mean
from flashhead_edge.export.graph_builder import GraphBuilder
from flashhead_edge.export.graph_files import save_graph
from flashhead_edge.export.head_graph import HeadTables, two_stage_graph
from flashhead_edge.export.tensor_ref import DataFile, TensorRef
from flashhead_edge.index.head_index import HeadIndex

if TYPE_CHECKING:
    import onnx

TensorRtPrecision = Literal["fp16", "int8"]
PRECISIONS: tuple[TensorRtPrecision, ...] = ("fp16", "int8")
#: Greatest k of TensorRT's TopK layer.
MOST_PROBES = 3840
_FLOAT = 1  # TensorProto.DataType


@dataclass(frozen=True)
class Rows:
    """Rows in a data file: float16, or int8 with a scale for each.

    Attributes:
        codes: [..., H] float16 or int8.
        scales: [...] float32, or None for float16.
    """

    codes: TensorRef
    scales: TensorRef | None


def tensorrt_graph(tables: HeadTables, centroids: Rows, rows: Rows) -> onnx.ModelProto:
    """Build the graph.

    Args:
        tables: Everything but the rows: order of tokens, biases, offsets, P.
        centroids: [K, H].
        rows: [T, C, H].

    Raises:
        OptionError: More clusters are opened than TensorRT's TopK can choose.
    """
    if tables.num_probes > MOST_PROBES:
        raise OptionError(
            "TensorRT cannot open this many clusters.",
            found=tables.num_probes,
            expected=f"at most {MOST_PROBES} (the greatest k of its TopK layer)",
            hint="export with fewer probes, or with larger clusters",
        )
    return two_stage_graph(
        tables,
        centroid_products=partial(_centroid_products, centroids=centroids),
        candidate_products=partial(_candidate_products, rows=rows),
    )


def write_tensorrt_head(
    folder: Path,
    tables: HeadTables,
    index: HeadIndex,
    *,
    centroid_precision: TensorRtPrecision,
    cluster_precision: TensorRtPrecision,
    name: str,
) -> Path:
    """Write the graph, and beside it the tensors that ``head.onnx.data`` does not hold in these precisions.

    Args:
        folder: Where ``head.onnx.data`` lies.
        tables: The tables in it.
        index: The head's index, for its centroids.
        centroid_precision: Of stage 1.
        cluster_precision: Of stage 2; float16 rows are taken from ``head.onnx.data``, not copied.
        name: File name of the graph; its data file has ``.data`` after it.

    Returns:
        The graph's path.

    Raises:
        OptionError: Unknown precision, or more probes than TensorRT can open.
    """
    for value in (centroid_precision, cluster_precision):
        if value not in PRECISIONS:
            raise OptionError(f"There is no TensorRT precision {value!r}.", hint=did_you_mean(value, PRECISIONS))
    with DataFile(folder / f"{name}.data") as data:
        centroids = _append(data, "head.tensorrt.centroids", index.centroids, centroid_precision)
        rows = Rows(tables.rows, None)
        if (cluster_precision, tables.rows.dtype) != ("fp16", "float16"):
            table = tables.rows.read(folder)
            rows = _append(data, "head.tensorrt.rows", table, cluster_precision)
    path = folder / name
    save_graph(tensorrt_graph(tables, centroids, rows), path)
    return path


def quantize_whole_rows(rows: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round rows to int8, symmetrically, with one scale a row: ``row ~ scale * code``.

    Args:
        rows: [..., H] float16 or float32.

    Returns:
        Codes [..., H], from -127 to 127, and scales [...].
    """
    wide = rows.astype(np.float32)
    scales = np.abs(wide).max(axis=-1) / np.float32(127)
    scales[scales < np.finfo(np.float32).tiny] = 0
    inverse = np.divide(1.0, scales, out=np.zeros_like(scales), where=scales != 0)
    return np.rint(wide * inverse[..., None]).astype(np.int8), scales


def _append(data: DataFile, name: str, rows: npt.NDArray[np.generic], precision: TensorRtPrecision) -> Rows:
    """Write rows in a precision, cluster by cluster."""
    if precision == "fp16":
        chunks = (rows[i : i + 256].astype(np.float16) for i in range(0, len(rows), 256))
        return Rows(data.append_chunks(name, chunks, dtype="float16", shape=rows.shape), None)
    scales = np.empty(rows.shape[:-1], np.float32)

    def codes(start: int) -> npt.NDArray[np.int8]:
        part, scales[start : start + 256] = quantize_whole_rows(rows[start : start + 256])  # type: ignore[arg-type]
        return part

    written = data.append_chunks(name, map(codes, range(0, len(rows), 256)), dtype="int8", shape=rows.shape)
    return Rows(written, data.append(f"{name}.scales", scales))


def _widened(graph: GraphBuilder, rows: Rows, place: str, *, opened: str | None = None) -> str:
    """The rows in float32, without their scales; of the opened clusters only."""
    graph.external(rows.codes)
    value = rows.codes.name
    if rows.scales is not None:
        graph.constant(f"{place}/one", np.array(1, np.float32))
        value = graph.node("DequantizeLinear", [value, f"{place}/one"], f"{place}/DequantizeLinear")
    if opened is not None:
        value = graph.node("Gather", [value, opened], f"{place}/Gather", axis=0)
    return value if rows.scales is not None else graph.node("Cast", [value], f"{place}/Cast", to=_FLOAT)


def _products(graph: GraphBuilder, rows: str, states: str, place: str) -> str:
    """Sums over the hidden size."""
    products = graph.node("Mul", [rows, states], f"{place}/Mul")
    graph.constant(f"{place}/last", np.array([-1], np.int64))
    return graph.node("ReduceSum", [products, f"{place}/last"], f"{place}/MatMul", keepdims=0)


def _centroid_products(graph: GraphBuilder, tables: HeadTables, width: int, *, centroids: Rows) -> str:
    """Stage 1, [B, K]; a centroid that is not rounded has no scale."""
    del tables, width
    place = "/head/centroids"
    graph.constant(f"{place}/axis", np.array([1], np.int64))
    states = graph.node("Unsqueeze", ["hidden_states", f"{place}/axis"], f"{place}/Unsqueeze")
    products = _products(graph, _widened(graph, centroids, place), states, place)
    if centroids.scales is None:
        return products
    graph.external(centroids.scales)
    return graph.node("Mul", [products, centroids.scales.name], f"{place}/RowScale")


def _candidate_products(graph: GraphBuilder, tables: HeadTables, chosen: str, opened: int, *, rows: Rows) -> str:
    """Stage 2, [B, M]."""
    size = tables.rows.shape[1]
    graph.constant("/head/logits/axes", np.array([1, 2], np.int64))
    states = graph.node("Unsqueeze", ["hidden_states", "/head/logits/axes"], "/head/logits/Unsqueeze")
    widened = _widened(graph, rows, "/head/clusters", opened=chosen)
    products = _products(graph, widened, states, "/head/logits")
    if rows.scales is not None:
        graph.external(rows.scales)
        scales = graph.node("Gather", [rows.scales.name, chosen], "/head/scales/Gather", axis=0)
        products = graph.node("Mul", [products, scales], "/head/logits/RowScale")
    graph.constant("/head/logits/shape", np.array([0, opened * size], np.int64))
    return graph.node("Reshape", [products, "/head/logits/shape"], "/head/logits/Reshape")
