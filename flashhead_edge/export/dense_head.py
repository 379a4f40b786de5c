"""The dense head as people ship it: one product with the whole vocabulary, in 8 or 4 bits or float32.

What two-stage heads are measured against. Same input as ``head.onnx``; outputs ``token_ids`` [B] int64 (the lowest id
among the greatest logits) and ``candidate_logits`` [B, V] float32, in the order of the vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionError
from flashhead_edge.export.graph_builder import GraphBuilder
from flashhead_edge.export.graph_files import save_graph
from flashhead_edge.export.tensor_ref import DataFile
from flashhead_edge.lm_head import LmHead
from flashhead_edge.quantize import quantize_rows

DensePrecision = Literal["int4", "int8", "fp32"]
_BITS = {"int4": 4, "int8": 8}


def write_dense_head(
    head: LmHead | npt.NDArray[np.float32], precision: DensePrecision, folder: Path, name: str
) -> Path:
    """Write a dense head's graph and, beside it, its data.

    Args:
        head: The dense head, or its rows [V, H] float32 where that is all of it.
        precision: "int4" and "int8" are symmetric blocks of 32 and round the state to int8, as ``MatMulNBits`` does at
            accuracy level 4; "fp32" rounds nothing.
        folder: Where the files go.
        name: File name of the graph; the data file's is the same with ``.data`` added.

    Returns:
        Path of the graph. Its nodes and tensors are named ``/head/...`` and ``head....``, so that it joins a body.

    Raises:
        OptionError: There is no such precision.
    """
    if precision != "fp32" and precision not in _BITS:
        raise OptionError("There is no such precision.", found=precision, expected="int4, int8 or fp32")
    if not isinstance(head, LmHead):
        head = LmHead(head)
    graph = GraphBuilder()
    place = "/head/logits/MatMul"
    with DataFile(folder / f"{name}.data") as data:
        if precision == "fp32":
            rows = data.append("head.dense.rows", head.rows)
            graph.external(rows)
            products = graph.node("Gemm", ["hidden_states", rows.name], place, transB=1)
        else:
            bits = _BITS[precision]
            quantized = quantize_rows(head.rows, bits)
            codes = data.append("head.dense.codes", quantized.codes)
            scales = data.append("head.dense.scales", quantized.scales)
            products = graph.quantized_product("hidden_states", codes, scales, place, bits=bits, width=head.hidden_size)
        if head.bias is not None:
            bias = data.append("head.dense.bias", head.bias)
            graph.external(bias)
            products = graph.node("Add", [products, bias.name], "/head/bias/Add")
    logits = graph.activate(products, "/head/logits", scale=head.logit_scale, softcap=head.logit_softcap)
    graph.identity(logits, "candidate_logits")
    # The first of several equal numbers, as the operator is defined.
    token = graph.node("ArgMax", [logits], "/head/greedy/ArgMax", axis=1, keepdims=0, select_last_index=0)
    graph.identity(token, "token_ids")
    outputs: list[tuple[str, type[np.generic], list[int]]] = [
        ("token_ids", np.int64, []),
        ("candidate_logits", np.float32, [head.vocab_size]),
    ]
    path = folder / name
    save_graph(graph.model(f"flashhead dense head, {precision}", head.hidden_size, outputs), path)
    return path
