"""One graph for a whole decoding step: embedding, body, chosen positions and head, over the weights already on disk.

One session means one thread pool, and the embedding reads the table that the head clusters, so a tied model keeps
one copy of its vocabulary::

    input_ids [B, S]
      |-- /embedding/... table row of every token ------------> inputs_embeds [B, S, H]
      |                                                              |
    attention_mask, past_key_values.* ----------------------- /model/... --> present.*
      |                                                              |
    scored_positions [N, 2] ------ /scored/... states of these (row, position) --> hidden_states [N, H]
                                                                                        |
                                                                                    /head/... --> the head's outputs

A step after the prompt scores the last position of every row, N = B; checking drafted tokens scores several of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashhead_edge import layout
from flashhead_edge.errors import ExportError
from flashhead_edge.export.embedding_graph import EMBEDDINGS, EmbeddingTable, native_embedding, standard_embedding
from flashhead_edge.export.graph_files import check_graph, load_graph, save_graph
from flashhead_edge.export.half_attention import use_half_attention
from flashhead_edge.export.native_attention import use_native_attention
from flashhead_edge.export.native_gates import use_native_gates
from flashhead_edge.export.native_norms import use_native_norms
from flashhead_edge.export.native_products import use_native_products
from flashhead_edge.export.native_residuals import use_native_residuals
from flashhead_edge.export.stored_rows import JOINED_ROWS

if TYPE_CHECKING:
    import onnx

_BODY_HIDDEN = "/model/hidden_states"


def write_decode_graph(
    folder: Path,
    *,
    embedding: EmbeddingTable,
    head_graph: str = layout.HEAD_GRAPH,
    output: str = layout.DECODE_GRAPH,
) -> None:
    """Join ``body.onnx`` and a head into one graph; only graph files are read and written, never weights.

    Batches are ragged on the right: the sum of a row of ``attention_mask`` [B, total] is the number of its real
    tokens, the cached ones included. The head sees the states of ``scored_positions``, which are an output too.

    Args:
        folder: The bundle's folder, with ``body.onnx``, the head graph and the data files of both.
        embedding: The table of input embeddings.
        head_graph: File name of the head: input ``hidden_states`` [B, H], outputs as the contract says.
        output: File name of the graph to write; where it ends on ".native.onnx", the native library does the
            embedding, and the body's attention and low-bit products; where on ".cuda.onnx", attention is float16.

    Raises:
        ExportError: The graphs do not fit together, or the result is not valid ONNX.
    """
    body, head = load_graph(folder / layout.BODY_GRAPH), load_graph(folder / head_graph)
    native = output.endswith(layout.NATIVE_SUFFIX)
    shape_body(body, output)
    _check_widths(body, head, embedding)
    opsets = _common_opsets(body, head)
    hidden = _rename_hidden_states(body.graph)
    shared = native_embedding(embedding) if native else standard_embedding(embedding)
    # Embedding and head put the same rows together, once and before all else.
    joining = {node.name: node for node in (*shared.nodes, *head.graph.node) if node.name.startswith(JOINED_ROWS)}
    pieces = [shared.nodes, body.graph.node, _scored_position_nodes(), head.graph.node]
    nodes = [node for piece in pieces for node in piece if node.name not in joining]
    graph = body.graph
    del graph.node[:]
    graph.node.extend([*joining.values(), *nodes])
    _check_names(graph)

    _add_initializers(graph, [*head.graph.initializer, *shared.initializers.values()])
    graph.value_info.extend([hidden, *head.graph.value_info])
    _set_inputs_and_outputs(graph, head.graph)

    del body.opset_import[:]
    body.opset_import.extend(opsets)
    body.ir_version = max(body.ir_version, head.ir_version)
    body.producer_name, body.producer_version = head.producer_name, head.producer_version
    graph.name = "flashhead decoding step"
    save_graph(body, folder / output)
    try:
        check_graph(folder / output)
    except ExportError:
        (folder / output).unlink()
        raise


def shape_body(body: onnx.ModelProto, name: str) -> None:
    """Give a body the form that the name of its graph's file ends on; in place."""
    if name.endswith(layout.NATIVE_SUFFIX):
        use_native_body(body)
    elif name.endswith(layout.CUDA_SUFFIX):
        use_half_attention(body)


def use_native_body(body: onnx.ModelProto) -> None:
    """Let the native library do a body's attention, low-bit products and gated layers, where it can; in place."""
    use_native_attention(body)
    use_native_norms(body)
    use_native_products(body)
    use_native_gates(body)
    use_native_residuals(body)
    read = {name for node in body.graph.node for name in node.input}
    kept = [tensor for tensor in body.graph.initializer if tensor.name in read]
    del body.graph.initializer[:]
    body.graph.initializer.extend(kept)


def _scored_position_nodes() -> list[onnx.NodeProto]:
    """From the body's output [B, S, H] to ``hidden_states`` [N, H]."""
    nodes: list[onnx.NodeProto] = []
    _add(nodes, "GatherND", [_BODY_HIDDEN, "scored_positions"], "/scored/GatherND")
    nodes[-1].output[0] = "hidden_states"
    return nodes


def _add(nodes: list[onnx.NodeProto], op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
    """Append a node of the standard domain and return the name of its output."""
    from onnx import helper

    nodes.append(helper.make_node(op, list(inputs), [f"{name}/output_0"], name=name, **attributes))
    return f"{name}/output_0"


def _rename_hidden_states(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    """Free the name ``hidden_states`` for the head's input; returns the body's output under its new name."""
    import onnx

    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == "hidden_states":
                    names[i] = _BODY_HIDDEN
    value = onnx.ValueInfoProto()
    value.CopyFrom(next(output for output in graph.output if output.name == "hidden_states"))
    value.name = _BODY_HIDDEN
    return value


def _set_inputs_and_outputs(graph: onnx.GraphProto, head: onnx.GraphProto) -> None:
    """``input_ids`` takes the place of the embeddings; the head's outputs and its input come first."""
    from onnx import TensorProto, helper

    inputs = [value for value in graph.input if value.name != EMBEDDINGS]
    embeds = next(value for value in graph.input if value.name == EMBEDDINGS)
    batch, sequence = (dim.dim_param for dim in embeds.type.tensor_type.shape.dim[:2])
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [batch, sequence])
    scored = helper.make_tensor_value_info("scored_positions", TensorProto.INT64, ["scored", 2])
    outputs = [value for value in graph.output if value.name != "hidden_states"]
    hidden = next(value for value in head.input if value.name == "hidden_states")
    inputs.extend(value for value in head.input if value is not hidden)
    own = [*head.output, hidden]
    for value in own:
        value.type.tensor_type.shape.dim[0].dim_param = "scored"
    del graph.input[:], graph.output[:]
    graph.input.extend([ids, scored, *inputs])
    graph.output.extend([*own, *outputs])


def _add_initializers(graph: onnx.GraphProto, tensors: Iterable[onnx.TensorProto]) -> None:
    """Add initializers; one that is there already must be the same."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    for tensor in tensors:
        other = known.setdefault(tensor.name, tensor)
        if other is tensor:
            graph.initializer.append(tensor)
        elif other.SerializeToString(deterministic=True) != tensor.SerializeToString(deterministic=True):
            raise ExportError(f"Two different tensors are named {tensor.name!r}.", expected="one, or the same place")


def _check_names(graph: onnx.GraphProto) -> None:
    """No two nodes may make the same value."""
    seen: set[str] = set()
    for node in graph.node:
        for name in filter(None, node.output):
            if name in seen:
                raise ExportError(f"Body and head both have a value named {name!r}.")
            seen.add(name)


def _check_widths(body: onnx.ModelProto, head: onnx.ModelProto, embedding: EmbeddingTable) -> None:
    """Body, head and embedding must agree on H, and the table's shape on what it is."""

    def width(values: Iterable[onnx.ValueInfoProto], name: str) -> int:
        value = next((value for value in values if value.name == name), None)
        if value is None:
            raise ExportError(f"A graph lacks {name!r}.", expected="the contract's inputs and outputs")
        return int(value.type.tensor_type.shape.dim[-1].dim_value)

    widths = {
        "body": width(body.graph.output, "hidden_states"),
        "head": width(head.graph.input, "hidden_states"),
        "embedding": embedding.table.width,
    }
    if len(set(widths.values())) != 1:
        raise ExportError("Body, head and embedding have different hidden sizes.", found=widths)
    found = embedding.table.data.shape
    if (len(found) == 2) != (embedding.slot_of_token is None):
        raise ExportError(
            "The embedding table has the wrong rank.",
            found=list(found),
            expected="[T, C, H] with the slot of every token, or [V, H]",
        )


def _common_opsets(body: onnx.ModelProto, head: onnx.ModelProto) -> list[onnx.OperatorSetIdProto]:
    """The newer opset of every domain, if no op of the older graph means something else there."""
    from onnx import defs, helper

    versions: dict[str, int] = {}
    for model in (body, head):
        for opset in model.opset_import:
            versions[opset.domain] = max(opset.version, versions.get(opset.domain, 0))
    newest = versions[""]
    for model in (body, head):
        own = next(opset.version for opset in model.opset_import if not opset.domain)
        for op in sorted({node.op_type for node in model.graph.node if not node.domain}):
            if defs.get_schema(op, own).since_version != defs.get_schema(op, newest).since_version:
                raise ExportError(
                    f"The op {op} changed between the opsets of body and head.",
                    found=f"opset {own}",
                    expected=f"opset {newest}",
                )
    return [helper.make_opsetid(domain, version) for domain, version in sorted(versions.items())]
