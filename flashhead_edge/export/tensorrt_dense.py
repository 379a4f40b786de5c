"""The dense head for TensorRT: what a two-stage engine is measured against.

One matrix product with the whole vocabulary in the precisions that TensorRT multiplies without a copy of the matrix:
float16, int8 with a rounded state (int8 weights alone are copied to float16 at every step), int4 in blocks. Same input
as ``head.onnx``; outputs ``token_ids`` [B] int64 and ``candidate_logits`` [B, V] float32, in the vocabulary's order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flashhead_edge.export.graph_builder import GraphBuilder
from flashhead_edge.export.graph_files import save_graph
from flashhead_edge.export.tensor_ref import DataFile, TensorRef
from flashhead_edge.export.tensorrt_graph import matrix_product
from flashhead_edge.export.tensorrt_head import batch_profile, least_capability
from flashhead_edge.export.tensorrt_rows import OPSETS, RowPrecision, Rows, check_precision, write_rows
from flashhead_edge.export.tensorrt_states import Int8States
from flashhead_edge.lm_head import LmHead
from flashhead_edge.manifest import TensorRtRecord

if TYPE_CHECKING:
    import onnx

DENSE_PRECISIONS: tuple[RowPrecision, ...] = ("fp16", "int8", "int4")


def write_tensorrt_dense_head(
    folder: Path,
    head: LmHead,
    precision: RowPrecision,
    *,
    name: str,
    max_batch: int = 8,
    int8_states: Int8States | None = None,
) -> TensorRtRecord:
    """Write the graph and, beside it, its data.

    Args:
        folder: Where the files go.
        head: The dense head.
        precision: "fp16", "int8" or "int4".
        name: File name of the graph; its data file has ``.data`` after it.
        max_batch: Greatest batch of an engine.
        int8_states: How states are rounded, for int8.

    Returns:
        What the manifest says of the graph.

    Raises:
        OptionError: There is no such precision, int4 does not fit the hidden size, or int8 has no bound.
    """
    check_precision("dense", precision, DENSE_PRECISIONS)
    factors = int8_states.divisors if precision == "int8" and int8_states is not None else None
    with DataFile(folder / f"{name}.data") as data:
        rows = write_rows(data, "head.dense.rows", head.rows, precision, block_scales="float16", factors=factors)
        bias = None if head.bias is None else data.append("head.dense.bias", head.bias)
    graph = dense_tensorrt_graph(
        rows, bias, logit_scale=head.logit_scale, logit_softcap=head.logit_softcap, int8_states=int8_states
    )
    save_graph(graph, folder / name)
    return TensorRtRecord(
        form="matmul",
        centroid_precision=None,
        cluster_precision=precision,
        opset=OPSETS[precision],
        least_compute_capability=least_capability(precision),
        batch=batch_profile(max_batch),
        weights={},
    )


def dense_tensorrt_graph(
    rows: Rows,
    bias: TensorRef | None,
    *,
    logit_scale: float = 1.0,
    logit_softcap: float | None = None,
    int8_states: Int8States | None = None,
) -> onnx.ModelProto:
    """Build the graph.

    Args:
        rows: [V, H], in the order of the vocabulary.
        bias: [V] float32, or None.
        logit_scale: Factor on the logits.
        logit_softcap: Soft-cap of the logits, or None.
        int8_states: As in :func:`write_tensorrt_dense_head`; the rows are multiplied by its divisors.

    Raises:
        OptionError: int8 rows without a bound of the state.
    """
    vocab, width = rows.codes.shape
    graph = GraphBuilder(OPSETS[rows.precision])
    products = matrix_product(graph, rows, "/head/logits", int8_states=int8_states)
    if bias is not None:
        graph.external(bias)
        products = graph.node("Add", [products, bias.name], "/head/bias/Add")
    logits = graph.activate(products, "/head/logits", scale=logit_scale, softcap=logit_softcap)
    graph.identity(logits, "candidate_logits")
    # The first of several equal numbers, as ONNX defines the operator.
    token = graph.node("ArgMax", [logits], "/head/greedy/ArgMax", axis=1, keepdims=0, select_last_index=0)
    graph.identity(token, "token_ids")
    outputs: list[tuple[str, type[np.generic], list[int]]] = [
        ("token_ids", np.int64, []),
        ("candidate_logits", np.float32, [vocab]),
    ]
    return graph.model(f"flashhead dense head for TensorRT, {rows.precision}", width, outputs)
