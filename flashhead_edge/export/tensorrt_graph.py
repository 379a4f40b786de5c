"""The two-stage head as TensorRT fuses it: standard operators, and every precision in the graph (strongly typed).

Two forms of stage 1. ``reduce`` is a product and a sum over the hidden size, for small batches::

    DequantizeLinear(rows, 1) -- Mul(hidden_states) -- ReduceSum -- Mul(row scales)

``matmul`` is a matrix product with the state in the type of the rows' product, for batches of 16 and more, where a
product and a sum would read the centroids once for each state::

    fp16, fp8, int4   Cast(hidden_states, float16) -- Gemm(DequantizeLinear(rows) float16) -- Cast -- Mul(row scales)
    int8              QuantizeLinear(hidden_states / divisors) -- DequantizeLinear
                          -- Gemm(DequantizeLinear(rows, row scales))

int8 rounds the state too, with one fixed scale: without that, TensorRT copies all rows to float16 at every step. The
product of float16 is rounded to float16 once, after its sum.

Stage 2 is always product and sum, of rows gathered after the DequantizeLinear and before a row's own scale: TensorRT
then writes one kernel for gather, dequantization and dot products and makes no copy of the opened rows. A matrix
product makes one; DequantizeLinear after Gather, or with a scale for each row, does not build or is not fused. Sums are
in float32: that many products of int8 numbers can pass the greatest float16. Inputs, outputs and what they mean are
those of ``head.onnx``; the selection and the tail are the same code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from flashhead_edge.errors import OptionError
from flashhead_edge.export.graph_builder import GraphBuilder
from flashhead_edge.export.head_graph import HeadTables, two_stage_graph
from flashhead_edge.export.tensorrt_rows import OPSETS, Rows, int4_block
from flashhead_edge.export.tensorrt_states import Int8States

if TYPE_CHECKING:
    import onnx

Form = Literal["reduce", "matmul"]
_FLOAT, _FLOAT16 = 1, 10  # TensorProto.DataType
#: Keeps sums of float8 products inside float16; a power of two, so it rounds nothing.
_FP8_STEP = 2.0**-9


def tensorrt_graph(
    tables: HeadTables, centroids: Rows, rows: Rows, *, form: Form = "reduce", int8_states: Int8States | None = None
) -> onnx.ModelProto:
    """Build the graph.

    Args:
        tables: Everything but the rows: order of tokens, biases, offsets, P.
        centroids: [K, H].
        rows: [T, C, H].
        form: Of stage 1.
        int8_states: For the form ``matmul`` with int8 centroids, which are multiplied by its divisors.

    Raises:
        OptionError: A product of int8 states without a bound of them.
    """
    return two_stage_graph(
        tables,
        centroid_products=partial(_centroid_products, centroids=centroids, form=form, int8_states=int8_states),
        candidate_products=partial(_candidate_products, rows=rows),
        opset=max(OPSETS[centroids.precision], OPSETS[rows.precision]),
    )


def matrix_product(graph: GraphBuilder, rows: Rows, place: str, *, int8_states: Int8States | None) -> str:
    """Products of ``hidden_states`` with all rows by one Gemm, [B, N] float32.

    Args:
        graph: Where the nodes go.
        rows: [N, H].
        place: First part of the nodes' names.
        int8_states: How states are rounded, for int8 rows, which are multiplied by its divisors.
    """
    graph.external(rows.codes)
    if rows.precision == "int8":
        return _int8_product(graph, rows, place, int8_states)
    states = "hidden_states"
    weights = rows.codes.name
    if rows.precision != "fp32":
        states = graph.node("Cast", [states], f"{place}/CastState", to=_FLOAT16)
    if rows.precision == "int4":
        weights = _int4_values(graph, rows, place)
    elif rows.precision == "fp8":
        step = graph.constant(f"{place}/step", np.array(_FP8_STEP, np.float16))
        weights = graph.node("DequantizeLinear", [weights, step], f"{place}/DequantizeLinear")
    products = graph.node("Gemm", [states, weights], f"{place}/MatMul", transB=1)
    if rows.precision != "fp32":
        products = graph.node("Cast", [products], f"{place}/Cast", to=_FLOAT)
    if rows.precision != "fp8" or rows.scales is None:
        return products
    inverse = graph.constant(f"{place}/inverse", np.array(1 / _FP8_STEP, np.float32))
    products = graph.node("Mul", [products, inverse], f"{place}/Step")
    return _times_row_scales(graph, products, rows, place)


def _int8_product(graph: GraphBuilder, rows: Rows, place: str, how: Int8States | None) -> str:
    if rows.scales is None or how is None or not 0 < how.bound < np.inf:
        raise OptionError(
            "A matrix product in int8 needs to know how large the state's numbers are.",
            found=None if how is None else how.bound,
            expected="a positive bound, fitted to calibration states",
        )
    graph.external(rows.scales)
    scale = graph.constant(f"{place}/state_scale", np.array(how.bound / 127, np.float32))
    zero = graph.constant(f"{place}/zero", np.array(0, np.int8))
    inverse = graph.constant(f"{place}/inverse_divisors", (1 / how.divisors).astype(np.float32))
    states = graph.node("Mul", ["hidden_states", inverse], f"{place}/BalanceState")
    states = graph.node("QuantizeLinear", [states, scale, zero], f"{place}/QuantizeState")
    states = graph.node("DequantizeLinear", [states, scale, zero], f"{place}/DequantizeState")
    zeros = graph.constant(f"{place}/zeros", np.zeros(rows.scales.shape, np.int8))
    weights = graph.node(
        "DequantizeLinear", [rows.codes.name, rows.scales.name, zeros], f"{place}/DequantizeLinear", axis=0
    )
    return graph.node("Gemm", [states, weights], f"{place}/MatMul", transB=1)


def _int4_values(graph: GraphBuilder, rows: Rows, place: str) -> str:
    """int4 rows in the type of their scales, scaled by block."""
    assert rows.scales is not None
    graph.external(rows.scales)
    return graph.node(
        "DequantizeLinear",
        [rows.codes.name, rows.scales.name],
        f"{place}/DequantizeLinear",
        axis=len(rows.codes.shape) - 1,
        block_size=int4_block(rows.codes.shape[-1]),
    )


def _widened(graph: GraphBuilder, rows: Rows, place: str, *, opened: str | None = None) -> str:
    """The rows in float32, without the scales of whole rows; of the opened clusters only."""
    graph.external(rows.codes)
    value = rows.codes.name
    if rows.precision == "int4":
        value = _int4_values(graph, rows, place)
    elif rows.scales is not None:
        one = graph.constant(f"{place}/one", np.array(1, np.float32))
        value = graph.node("DequantizeLinear", [value, one], f"{place}/DequantizeLinear")
    if opened is not None:
        value = graph.node("Gather", [value, opened], f"{place}/Gather", axis=0)
    if rows.precision == "fp16":
        value = graph.node("Cast", [value], f"{place}/Cast", to=_FLOAT)
    return value


def _products(graph: GraphBuilder, rows: str, states: str, place: str) -> str:
    """Sums over the hidden size."""
    products = graph.node("Mul", [rows, states], f"{place}/Mul")
    graph.constant(f"{place}/last", np.array([-1], np.int64))
    return graph.node("ReduceSum", [products, f"{place}/last"], f"{place}/MatMul", keepdims=0)


def _times_row_scales(graph: GraphBuilder, products: str, rows: Rows, place: str, opened: str | None = None) -> str:
    """Products of rows that have one scale each, scaled; others as they are."""
    if rows.scales is None or rows.precision == "int4":
        return products
    graph.external(rows.scales)
    scales = rows.scales.name
    if opened is not None:
        scales = graph.node("Gather", [scales, opened], "/head/scales/Gather", axis=0)
    return graph.node("Mul", [products, scales], f"{place}/RowScale")


def _centroid_products(
    graph: GraphBuilder, tables: HeadTables, width: int, *, centroids: Rows, form: Form, int8_states: Int8States | None
) -> str:
    """Stage 1, [B, K]."""
    del tables, width
    place = "/head/centroids"
    if form == "matmul":
        return matrix_product(graph, centroids, place, int8_states=int8_states)
    graph.constant(f"{place}/axis", np.array([1], np.int64))
    states = graph.node("Unsqueeze", ["hidden_states", f"{place}/axis"], f"{place}/Unsqueeze")
    products = _products(graph, _widened(graph, centroids, place), states, place)
    return _times_row_scales(graph, products, centroids, place)


def _candidate_products(graph: GraphBuilder, tables: HeadTables, chosen: str, opened: int, *, rows: Rows) -> str:
    """Stage 2, [B, M]."""
    size = tables.rows.shape[1]
    graph.constant("/head/logits/axes", np.array([1, 2], np.int64))
    states = graph.node("Unsqueeze", ["hidden_states", "/head/logits/axes"], "/head/logits/Unsqueeze")
    products = _products(graph, _widened(graph, rows, "/head/clusters", opened=chosen), states, "/head/logits")
    products = _times_row_scales(graph, products, rows, "/head/logits", chosen)
    graph.constant("/head/logits/shape", np.array([0, opened * size], np.int64))
    return graph.node("Reshape", [products, "/head/logits/shape"], "/head/logits/Reshape")
