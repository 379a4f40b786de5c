"""The two-stage head as one operator of the native library, over the same tables.

::

    hidden_states [B, H] -- /head/TwoStageHead --> token_ids, candidate_ids, candidate_logits, cluster_scores

The operator reads the tables where ONNX Runtime mapped them and runs on the session's own threads. Its inputs are, in
order, what :class:`HeadTables` names; docs/native.md has its steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flashhead_edge import layout
from flashhead_edge.export.graph_builder import GraphBuilder
from flashhead_edge.export.head_graph import HEAD_OUTPUTS, HeadTables, head_outputs

if TYPE_CHECKING:
    import onnx

#: Domain of the operators of the native library.
NATIVE_DOMAIN = "flashhead_edge"
#: Estimates that a greedy step always checks; their errors say how far those of the others may reach.
NUM_RESCORED = 24


def native_head_graph(tables: HeadTables, *, num_rescored: int = NUM_RESCORED) -> onnx.ModelProto:
    """The graph of ``head.native.onnx``: inputs and outputs of ``head.onnx``.

    Where rows can be estimated from fewer bytes, there is one input more, :data:`~flashhead_edge.layout.GREEDY_INPUT`.

    Args:
        tables: Where the tensors lie.
        num_rescored: The best estimates that a greedy step always checks.
    """
    from onnx import TensorProto, helper

    total, size, width = tables.rows.shape
    graph = GraphBuilder()
    rows, centroids = tables.rows, tables.centroids
    refs = [
        centroids.data,
        centroids.scales,
        tables.centroid_bias,
        tables.selection_offset,
        rows.data,
        tables.token_order,
        tables.row_bias,
        tables.low_bit_codes,
        tables.low_bit_scales,
        tables.projection,
        rows.low,
        rows.scales,
        centroids.high,
    ]
    for ref in refs:
        if ref is not None:
            graph.external(ref)
    names = ["" if ref is None else ref.name for ref in refs]
    estimates = any(ref is not None for ref in (tables.low_bit_codes, rows.low, centroids.high))
    if estimates and tables.logit_scale > 0 and tables.num_probes < tables.num_clusters:
        names.append(graph.constant(layout.GREEDY_INPUT, np.array([False])))
    graph.nodes.append(
        helper.make_node(
            "TwoStageHead",
            ["hidden_states", *names],
            list(HEAD_OUTPUTS),
            name="/head/TwoStageHead",
            domain=NATIVE_DOMAIN,
            num_probes=tables.num_probes,
            num_rescored=num_rescored,
            logit_scale=float(tables.logit_scale),
            logit_softcap=float(tables.logit_softcap or 0),
        )
    )
    opened = tables.num_probes + total - tables.num_clusters
    model = graph.model("flashhead native head", width, head_outputs(opened * size, tables.num_clusters))
    if layout.GREEDY_INPUT in graph.initializers:
        model.graph.input.append(helper.make_tensor_value_info(layout.GREEDY_INPUT, TensorProto.BOOL, [1]))
    return model


def native_dense_graph(tables: HeadTables) -> onnx.ModelProto:
    """The same operator with every cluster opened: a dense head, exact, over the table as it is stored.

    Args:
        tables: Where the tensors lie; low-bit rows are left out.
    """
    return native_head_graph(replace(tables, num_probes=tables.num_clusters, low_bit_codes=None, low_bit_scales=None))


def make_native(model: onnx.ModelProto, node: onnx.NodeProto, attributes: dict[str, Any]) -> None:
    """Let the native library's operator of the same name do what a node does.

    Args:
        model: The graph, whose imports get the library's domain.
        node: One of its nodes.
        attributes: What the node keeps of its attributes.
    """
    from onnx import helper

    node.domain = NATIVE_DOMAIN
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    if NATIVE_DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(NATIVE_DOMAIN, 1))
