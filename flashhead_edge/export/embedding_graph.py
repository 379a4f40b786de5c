"""Token embeddings of a decoding graph, out of the table that the head clusters or one by token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flashhead_edge.export.graph_builder import GraphBuilder
from flashhead_edge.export.native_graph import NATIVE_DOMAIN
from flashhead_edge.export.stored_rows import StoredRows
from flashhead_edge.export.tensor_ref import TensorRef
from flashhead_edge.quantize import BLOCK_SIZE

EMBEDDINGS = "inputs_embeds"
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType


@dataclass(frozen=True)
class EmbeddingTable:
    """Where the rows of the input embedding lie.

    Attributes:
        table: The head's rows of a tied model, or ``embedding.rows`` [V, H].
        slot_of_token: Place of every token in a table of clusters, [V] int32; None if the table is by token.
        scale: Factor on the embedding: sqrt(H) for Gemma, Granite's ``embedding_multiplier``.
    """

    table: StoredRows
    slot_of_token: TensorRef | None = None
    scale: float = 1.0


def standard_embedding(embedding: EmbeddingTable) -> GraphBuilder:
    """From ``input_ids`` [B, S] to ``inputs_embeds`` [B, S, H] float32 by standard operators."""
    graph = GraphBuilder()
    table = embedding.table.add_to(graph)
    indices = ""
    if embedding.slot_of_token is None:
        value = graph.node("Gather", [table, "input_ids"], "/embedding/rows/Gather")
    else:
        # Indices instead of a reshaped table, which constant folding would copy.
        graph.external(embedding.slot_of_token)
        last = graph.constant("/embedding/last_axis", np.array([-1], np.int64))
        size = graph.constant("/embedding/cluster_size", np.array(embedding.table.shape[1], np.int64))
        slot = graph.node("Gather", [embedding.slot_of_token.name, "input_ids"], "/embedding/slots/Gather")
        slot = graph.node("Cast", [slot], "/embedding/slots/Cast", to=_INT64)
        slot = graph.node("Unsqueeze", [slot, last], "/embedding/slots/Unsqueeze")
        cluster = graph.node("Div", [slot, size], "/embedding/clusters/Div")
        place = graph.node("Mod", [slot, size], "/embedding/places/Mod")
        indices = graph.node("Concat", [cluster, place], "/embedding/indices/Concat", axis=-1)
        value = graph.node("GatherND", [table, indices], "/embedding/rows/GatherND")
    if embedding.table.data.dtype != "float32":
        value = graph.node("Cast", [value], "/embedding/rows/Cast", to=_FLOAT)
    if embedding.table.scales is not None:
        value = _scaled(graph, value, embedding.table.scales, indices)
    if embedding.scale != 1.0:
        factor = graph.constant("/embedding/scale", np.array(embedding.scale, np.float32))
        value = graph.node("Mul", [value, factor], "/embedding/scale/Mul")
    graph.nodes[-1].output[0] = EMBEDDINGS
    return graph


def _scaled(graph: GraphBuilder, codes: str, row_scales: TensorRef, indices: str) -> str:
    """Codes [B, S, H] float32 times the scales of their blocks."""
    graph.external(row_scales)
    blocks = graph.constant("/embedding/blocks", np.array([0, 0, -1, BLOCK_SIZE], np.int64))
    width = graph.constant("/embedding/width", np.array([0, 0, -1], np.int64))
    scales = graph.node("GatherND", [row_scales.name, indices], "/embedding/scales/GatherND")
    scales = graph.node("Cast", [scales], "/embedding/scales/Cast", to=_FLOAT)
    scales = graph.node("Unsqueeze", [scales, "/embedding/last_axis"], "/embedding/scales/Unsqueeze")
    value = graph.node("Reshape", [codes, blocks], "/embedding/blocks/Reshape")
    value = graph.node("Mul", [value, scales], "/embedding/rows/Mul")
    return graph.node("Reshape", [value, width], "/embedding/rows/Reshape")


def native_embedding(embedding: EmbeddingTable) -> GraphBuilder:
    """The same as one operator of the native library."""
    from onnx import helper

    graph = GraphBuilder()
    refs = (embedding.slot_of_token, embedding.table.data, embedding.table.low, embedding.table.scales)
    for ref in refs:
        if ref is not None:
            graph.external(ref)
    names = ["input_ids", *("" if ref is None else ref.name for ref in refs)]
    node = helper.make_node(
        "TokenEmbedding", names, [EMBEDDINGS], name="/embedding", domain=NATIVE_DOMAIN, scale=float(embedding.scale)
    )
    graph.nodes.append(node)
    return graph
