"""The two-stage head, and the dense head for comparison, as ONNX graphs over one table of rows.

::

    hidden_states [B, H]
      |-- /head/centroids/MatMul -- + bias ----+-- (scale, soft-cap) --> cluster_scores [B, K]
      |                                        |
      |                               + head.selection_offset --> /head/select/TopK [B, P]
      |                                                             |
      |                                  /head/select/Concat with the always-scored clusters [B, P + A/C]
      |                                                             |
      |   in pieces: head.rows [T, C, H] -- /head/clusters/Gather  [B, P + A/C, C, H] -- Cast, Reshape [B, M, H]
      |                                                             |
      '------------------------------------------ /head/logits/MatMul [B, M] -- (+ bias, scale, soft-cap)
                                                                    |
               head.token_order [T, C] -- /head/ids/Gather [B, M] --+-- -inf where the id is -1 --> candidate_logits
                                                                    |
                                                /head/greedy: lowest id among the greatest logits --> token_ids [B]

The dense graph is the same tail with every slot of the table as a candidate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flashhead_edge.export.graph_builder import OPSET, GraphBuilder
from flashhead_edge.export.stored_centroids import StoredCentroids
from flashhead_edge.export.stored_rows import StoredRows
from flashhead_edge.export.tensor_ref import TensorRef
from flashhead_edge.quantize import BLOCK_SIZE

if TYPE_CHECKING:
    import onnx

HEAD_OUTPUTS = ("token_ids", "candidate_ids", "candidate_logits", "cluster_scores")

#: Above every id, and exact in float32, in which OpenVINO's CPU plugin selects integers.
_NO_TOKEN = 1 << 30
#: Widened rows of a piece of stage 2, in bytes: what stays in the second-level caches of two cores.
_PIECE_BYTES = 5 << 18


@dataclass(frozen=True)
class HeadTables:
    """Where the head's tensors lie, and what is done to its logits.

    Attributes:
        rows: The vocabulary rows, [T, C, H].
        token_order: ``head.token_order``, [T, C] int32.
        row_bias: ``head.row_bias``, [T, C] float32, or None.
        centroids: The centroids, [K, H], or [K, r] where there is a projection.
        centroid_bias: [K] float32.
        selection_offset: [K] float32.
        num_probes: P.
        num_clusters: K.
        logit_scale: Factor on the logits.
        logit_softcap: Soft-cap of the logits, or None.
        low_bit_codes: ``head.low_bit_codes``, [T, C, blocks, 16 or 32] uint8, or None; only native graphs read them.
        low_bit_scales: ``head.low_bit_scales``, [T, C, blocks] float16, or None.
        projection: ``head.projection``, [H, r] float32, or None; centroids have r columns then.
    """

    rows: StoredRows
    token_order: TensorRef
    row_bias: TensorRef | None
    centroids: StoredCentroids
    centroid_bias: TensorRef
    selection_offset: TensorRef
    num_probes: int
    num_clusters: int
    logit_scale: float
    logit_softcap: float | None
    low_bit_codes: TensorRef | None = None
    low_bit_scales: TensorRef | None = None
    projection: TensorRef | None = None


def _centroid_products(graph: GraphBuilder, tables: HeadTables, width: int) -> str:
    """Stage 1: products of all centroids with the state, [B, K]."""
    state = "hidden_states"
    if tables.projection is not None:
        graph.external(tables.projection)
        state = graph.node("MatMul", [state, tables.projection.name], "/head/projection/MatMul")
        width = tables.projection.shape[1]
    return tables.centroids.add_products(graph, state, "/head/centroids/MatMul", width=width)


def _with_centroid_bias(graph: GraphBuilder, tables: HeadTables, products: str) -> str:
    graph.external(tables.centroid_bias)
    return graph.node("Add", [products, tables.centroid_bias.name], "/head/centroids/Add")


def _pieces(tables: HeadTables, opened: int) -> int:
    """In how many pieces the rows of the opened clusters stay in a processor's cache."""
    _, size, width = tables.rows.shape
    return min(opened, max(1, round(opened * size * width * 4 / _PIECE_BYTES)))


def _candidate_products(
    graph: GraphBuilder, tables: HeadTables, chosen: str, opened: int, count: int | None = None
) -> str:
    """Stage 2: products of the opened clusters' rows with the state, [B, M].

    Rows are gathered, widened and multiplied in pieces that stay in the processor's cache between the three. Within a
    model, where the rows come from memory, pieces of 1 to 1.5 MB shorten a decode step by a sixth against pieces of
    9 MB (Gemma 3 270M, 9,300 rows, two cores); the first piece bears the contract's node names.
    """
    _, size, _ = tables.rows.shape
    stored = tables.rows.add_to(graph)
    state = _state(graph, tables)
    count = count or _pieces(tables, opened)
    lengths = [opened // count + (i < opened % count) for i in range(count)]
    pieces = [chosen]
    if count > 1:
        graph.constant("/head/clusters/lengths", np.array(lengths, np.int64))
        split = "/head/clusters/Split"
        graph.node("Split", [chosen, "/head/clusters/lengths"], split, outputs=count, axis=1)
        pieces = [f"{split}/output_{i}" for i in range(count)]
    products = []
    for number, (piece, length) in enumerate(zip(pieces, lengths, strict=True)):
        suffix = f".{number}" if number else ""
        place = f"/head/clusters{suffix}"
        rows = graph.node("Gather", [stored, piece], f"{place}/Gather", axis=0)
        scales = None
        if tables.rows.scales is not None:
            graph.external(tables.rows.scales)
            scales = graph.node("Gather", [tables.rows.scales.name, piece], f"{place}/scales/Gather", axis=0)
        products.append(_products(graph, tables, rows, scales, state, length * size, suffix))
    joined = graph.node("Concat", products, "/head/logits/Concat", axis=1) if count > 1 else products[0]
    return graph.node("Squeeze", [joined, "/head/logits/last"], "/head/logits/Squeeze")


def _state(graph: GraphBuilder, tables: HeadTables) -> str:
    """The state as :func:`_products` takes it: a column [B, H, 1], or for int8 rows a row [B, 1, H]."""
    graph.constant("/head/logits/last", np.array([2], np.int64))
    axis = "/head/logits/last"
    if tables.rows.scales is not None:
        graph.constant("/head/logits/middle", np.array([1], np.int64))
        axis = "/head/logits/middle"
    return graph.node("Unsqueeze", ["hidden_states", axis], "/head/logits/Unsqueeze")


def _products(
    graph: GraphBuilder,
    tables: HeadTables,
    rows: str,
    scales: str | None,
    state: str,
    count: int,
    suffix: str = "",
) -> str:
    """Products of ``count`` stored rows for each state with that state: [B, count, 1].

    Int8 codes are multiplied with the state and summed by block before their scales come to it: a scale for every
    code would be one more pass over all of them.
    """
    width = tables.rows.shape[2]
    place = f"/head/clusters{suffix}"
    if tables.rows.data.dtype != "float32":
        rows = graph.node("Cast", [rows], f"{place}/Cast", to=1)
    graph.constant(f"{place}/shape", np.array([0, count, width], np.int64))
    rows = graph.node("Reshape", [rows, f"{place}/shape"], f"{place}/Reshape")
    logits = f"/head/logits{suffix}"
    if scales is None:
        return graph.node("MatMul", [rows, state], f"{logits}/MatMul")
    blocks = width // BLOCK_SIZE
    graph.constant(f"{place}/blocks", np.array([0, count, blocks, BLOCK_SIZE], np.int64))
    graph.constant(f"{place}/scales/shape", np.array([0, count, blocks], np.int64))
    graph.constant("/head/logits/block", np.array([3], np.int64))
    products = graph.node("Mul", [rows, state], f"{logits}/Mul")
    products = graph.node("Reshape", [products, f"{place}/blocks"], f"{logits}/Reshape")
    sums = graph.node("ReduceSum", [products, "/head/logits/block"], f"{logits}/blocks/ReduceSum", keepdims=0)
    scales = graph.node("Cast", [scales], f"{place}/scales/Cast", to=1)
    scales = graph.node("Reshape", [scales, f"{place}/scales/shape"], f"{place}/scales/Reshape")
    sums = graph.node("Mul", [sums, scales], f"{logits}/blocks/Mul")
    return graph.node("ReduceSum", [sums, "/head/logits/last"], f"{logits}/ReduceSum", keepdims=1)


def gpu_head_graph(tables: HeadTables) -> onnx.ModelProto:
    """The graph of ``head.onnx`` with all rows in one piece: a GPU takes longer to start kernels than to run these."""
    return two_stage_graph(tables, candidate_products=partial(_candidate_products, count=1))


def two_stage_graph(
    tables: HeadTables,
    *,
    centroid_products: Callable[[GraphBuilder, HeadTables, int], str] = _centroid_products,
    candidate_products: Callable[[GraphBuilder, HeadTables, str, int], str] = _candidate_products,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """The graph of ``head.onnx``; the contract of its inputs and outputs is in docs/bundle-format.md.

    Args:
        tables: Where the tensors lie.
        centroid_products: Adds stage 1 for the width H; returns [B, K], without biases.
        candidate_products: Adds stage 2 for the opened clusters' numbers, a value [B, opened], and how many they are;
            returns [B, M], without biases.
        opset: Of the graph; whoever replaces a stage may need another.
    """
    total, size, width = tables.rows.shape
    clusters, probes = tables.num_clusters, tables.num_probes
    opened = probes + total - clusters
    graph = GraphBuilder(opset)
    graph.node("Shape", ["hidden_states"], "/head/batch/Shape", start=0, end=1)
    products = _with_centroid_bias(graph, tables, centroid_products(graph, tables, width))
    graph.identity(
        graph.activate(products, "/head/centroids", scale=tables.logit_scale, softcap=tables.logit_softcap),
        "cluster_scores",
    )

    # Scale and soft-cap do not change the order, so clusters are chosen by products.
    graph.external(tables.selection_offset)
    scores = graph.node("Add", [products, tables.selection_offset.name], "/head/select/Add")
    graph.constant("/head/select/k", np.array([probes], np.int64))
    graph.node("TopK", [scores, "/head/select/k"], "/head/select/TopK", outputs=2, axis=1, largest=1, sorted=0)
    chosen = "/head/select/TopK/output_1"
    if opened > probes:
        graph.constant("/head/select/always", np.arange(clusters, total, dtype=np.int64)[None, :])
        graph.constant("/head/select/one", np.array([total - clusters], np.int64))
        shape = graph.node("Concat", ["/head/batch/Shape/output_0", "/head/select/one"], "/head/select/Shape", axis=0)
        always = graph.node("Expand", ["/head/select/always", shape], "/head/select/Expand")
        chosen = graph.node("Concat", [chosen, always], "/head/select/Concat", axis=1)

    products = candidate_products(graph, tables, chosen, opened)

    graph.constant("/head/ids/shape", np.array([0, opened * size], np.int64))
    if tables.row_bias is not None:
        graph.external(tables.row_bias)
        bias = graph.node("Gather", [tables.row_bias.name, chosen], "/head/bias/Gather", axis=0)
        bias = graph.node("Reshape", [bias, "/head/ids/shape"], "/head/bias/Reshape")
        products = graph.node("Add", [products, bias], "/head/bias/Add")
    graph.external(tables.token_order)
    ids = graph.node("Gather", [tables.token_order.name, chosen], "/head/ids/Gather", axis=0)
    ids = graph.node("Reshape", [ids, "/head/ids/shape"], "/head/ids/Reshape")
    _finish(graph, products, ids, tables)
    return graph.model("flashhead two-stage head", width, head_outputs(opened * size, clusters))


def dense_graph(tables: HeadTables) -> onnx.ModelProto:
    """A dense float32 head over the same table: every slot is a candidate, in the table's order."""
    total, size, width = tables.rows.shape
    graph = GraphBuilder()
    graph.node("Shape", ["hidden_states"], "/head/batch/Shape", start=0, end=1)
    products = _with_centroid_bias(graph, tables, _centroid_products(graph, tables, width))
    graph.identity(
        graph.activate(products, "/head/centroids", scale=tables.logit_scale, softcap=tables.logit_softcap),
        "cluster_scores",
    )
    rows = tables.rows.add_to(graph)
    if tables.rows.data.dtype != "float32":
        rows = graph.node("Cast", [rows], "/head/dense/Cast", to=1)
    if tables.rows.scales is not None:
        graph.external(tables.rows.scales)
        blocks = width // BLOCK_SIZE
        graph.constant("/head/dense/blocks", np.array([total * size, blocks, BLOCK_SIZE], np.int64))
        graph.constant("/head/dense/scales/shape", np.array([total * size, blocks, 1], np.int64))
        rows = graph.node("Reshape", [rows, "/head/dense/blocks"], "/head/dense/blocks/Reshape")
        scales = graph.node("Cast", [tables.rows.scales.name], "/head/dense/scales/Cast", to=1)
        scales = graph.node("Reshape", [scales, "/head/dense/scales/shape"], "/head/dense/scales/Reshape")
        rows = graph.node("Mul", [rows, scales], "/head/dense/Mul")
    graph.constant("/head/dense/shape", np.array([total * size, width], np.int64))
    rows = graph.node("Reshape", [rows, "/head/dense/shape"], "/head/dense/Reshape")
    products = graph.node("Gemm", ["hidden_states", rows], "/head/logits/MatMul", transB=1)
    graph.constant("/head/ids/shape", np.array([1, total * size], np.int64))
    if tables.row_bias is not None:
        graph.external(tables.row_bias)
        bias = graph.node("Reshape", [tables.row_bias.name, "/head/ids/shape"], "/head/bias/Reshape")
        products = graph.node("Add", [products, bias], "/head/bias/Add")
    graph.external(tables.token_order)
    ids = graph.node("Reshape", [tables.token_order.name, "/head/ids/shape"], "/head/ids/Reshape")
    graph.constant("/head/ids/slots", np.array([total * size], np.int64))
    shape = graph.node("Concat", ["/head/batch/Shape/output_0", "/head/ids/slots"], "/head/ids/Shape", axis=0)
    ids = graph.node("Expand", [ids, shape], "/head/ids/Expand")
    _finish(graph, products, ids, tables)
    return graph.model("flashhead dense head", width, head_outputs(total * size, tables.num_clusters))


def _finish(graph: GraphBuilder, products: str, ids: str, tables: HeadTables) -> None:
    """Logits from products, padding masked, and the greedy token."""
    logits = graph.activate(products, "/head/logits", scale=tables.logit_scale, softcap=tables.logit_softcap)
    graph.constant("/head/ids/zero", np.array(0, np.int32))
    graph.constant("/head/logits/lowest", np.array(-np.inf, np.float32))
    padding = graph.node("Less", [ids, "/head/ids/zero"], "/head/ids/Less")
    logits = graph.node("Where", [padding, "/head/logits/lowest", logits], "/head/logits/Where")
    graph.identity(logits, "candidate_logits")
    wide = graph.node("Cast", [ids], "/head/ids/Cast", to=7)
    graph.identity(wide, "candidate_ids")
    graph.constant("/head/greedy/last", np.array(_NO_TOKEN, np.int64))
    best = graph.reduce("ReduceMax", logits, 1, "/head/greedy/ReduceMax", keepdims=1)
    equal = graph.node("Equal", [logits, best], "/head/greedy/Equal")
    winners = graph.node("Where", [equal, wide, "/head/greedy/last"], "/head/greedy/Where")
    token = graph.reduce("ReduceMin", winners, 1, "/head/greedy/ReduceMin", keepdims=0)
    graph.identity(token, "token_ids")


def head_outputs(candidates: int, clusters: int) -> list[tuple[str, type[np.generic], list[int]]]:
    """The contract of a head's outputs: names, types, shapes after the batch."""
    shapes: list[list[int]] = [[], [candidates], [candidates], [clusters]]
    types: list[type[np.generic]] = [np.int64, np.int64, np.float32, np.float32]
    return list(zip(HEAD_OUTPUTS, types, shapes, strict=True))
