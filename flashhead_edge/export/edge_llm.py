"""The two-stage head in place of the dense one in a graph that TensorRT Edge-LLM's exporter wrote.

The exporter's graphs end in::

    states [tokens, H] float16 -- Gather(logits_indices) [n, H] -- Gemm(lm_head [V, H]) -- Cast -- logits [n, V] float32

and its C++ runtime draws tokens from ``logits``. From the Gather on, the graph becomes::

    Gather [n, H] -- Cast -- head.tensorrt.onnx --+-- cluster_scores [n, K] -- Gather: of every token's cluster
                                                  |                                  |
                                                  |               Min(greatest candidate logit - GAP) [n, V + D]
                                                  |                                  |
                                                  '-- candidate_logits [n, M] -- ScatterElements -- Slice -- logits

so inputs and outputs stay what they were. A cluster's score is the logarithm of its members' mean exponential: a closed
cluster keeps about its mass at temperature 1, spread evenly over its tokens, and the best candidate stays the best. D
columns behind the vocabulary take what belongs to empty slots, one each, as scattered indices must differ.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flashhead_edge import layout
from flashhead_edge.errors import ExportError, OptionalDependencyError, OptionError
from flashhead_edge.export.edge_llm_tail import DenseTail, find_tail, remove_tail
from flashhead_edge.export.graph_builder import GraphBuilder
from flashhead_edge.export.graph_files import load_graph, save_graph
from flashhead_edge.files import new_folder

if TYPE_CHECKING:
    import onnx

    from flashhead_edge.bundle import Bundle
    from flashhead_edge.index.head_index import HeadIndex

#: How far below the greatest candidate's logit all estimates stay; a float32 resolves it up to logits of 100,000.
GAP = 2.0**-6
_FLOAT = 1  # TensorProto.DataType
_STATES = "/head/states/Cast"
#: Operators that newer opsets gave types and optional attributes, and no other meaning, up to this one.
_SAME_MEANING = {"Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Shape", "TopK", "Unsqueeze"}
_NEWEST_OPSET = 25


@dataclass(frozen=True)
class SplicedModel:
    """What was written.

    Attributes:
        model: The graph.
        vocab_size: V.
        hidden_size: H.
        num_probes: P.
        rows_scored: Rows that a step scores.
        reduction: V / rows scored.
    """

    model: Path
    vocab_size: int
    hidden_size: int
    num_probes: int
    rows_scored: int
    reduction: float


def splice_head(model: Path, bundle: Bundle, output: Path, *, force: bool = False) -> SplicedModel:
    """Write a copy of an exported folder whose graph has the bundle's head.

    Args:
        model: ``model.onnx`` in the exporter's folder ``llm``; what lies beside it is copied.
        bundle: A bundle of the same model, with a graph for TensorRT.
        output: The folder to write.
        force: Replace what is there.

    Returns:
        What was written.

    Raises:
        OptionalDependencyError: onnx is not installed.
        OptionError: The graph has another tail or other weights than the bundle's head, or the bundle no graph for
            TensorRT with its weights inside.
        ExportError: The result is not valid ONNX, or the disk is full.
    """
    _require_onnx()
    if not model.is_file():
        raise OptionError(f"{model} is not a file.", expected="model.onnx, in the exporter's folder llm")
    head = _head_graph(bundle)
    graph_model = load_graph(model)
    tail = find_tail(graph_model.graph, bundle, model.parent)
    opset = next(entry.version for entry in graph_model.opset_import if not entry.domain)
    kept = _needed_nodes(head.graph, ["candidate_logits", "cluster_scores"])
    _check_opsets(kept, head, opset)
    remove_tail(graph_model.graph, tail)
    _append_head(graph_model.graph, head.graph, kept, tail, bundle.index(), opset)

    data = sorted(_data_files(head.graph))
    with new_folder(output, force=force) as folder:
        for file in model.parent.iterdir():
            if file.is_file() and file != model:
                shutil.copy2(file, folder)
        for name in data:
            if (folder / name).exists():
                raise OptionError(
                    f"The exported folder already has a file {name}.", hint="give the exporter's own folder"
                )
            shutil.copy2(bundle.file(name), folder)
        save_graph(graph_model, folder / model.name)
        _check(folder / model.name)
    facts = bundle.manifest.index
    return SplicedModel(
        output / model.name,
        bundle.manifest.vocab_size,
        bundle.manifest.hidden_size,
        facts.num_probes,
        facts.rows_scored,
        facts.reduction,
    )


def _require_onnx() -> None:
    if importlib.util.find_spec("onnx") is None:
        raise OptionalDependencyError("onnx", "export", "Splicing a head")


def _head_graph(bundle: Bundle) -> onnx.ModelProto:
    """``head.tensorrt.onnx``."""
    record = bundle.manifest.graphs.get("head_tensorrt")
    if record is None or record.tensorrt is None:
        raise OptionError(
            "The bundle has no head for TensorRT.",
            found=", ".join(sorted(bundle.manifest.graphs)),
            hint="export the model again with --target tensorrt",
        )
    if record.tensorrt.weights:
        raise OptionError(
            "The weights of the bundle's head are inputs, which Edge-LLM's runtime does not feed.",
            hint="export the model again without --tensorrt-weight-inputs",
        )
    return load_graph(bundle.file(layout.TENSORRT_HEAD_GRAPH))


def _needed_nodes(graph: onnx.GraphProto, outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that these outputs come from, in order."""
    needed = set(outputs)
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]


def _check_opsets(nodes: list[onnx.NodeProto], head: onnx.ModelProto, opset: int) -> None:
    """Nodes of the head must mean the same in the opset of the exported graph."""
    from onnx import defs

    own = head.opset_import[0].version
    changed = [] if own <= opset <= _NEWEST_OPSET else ["every operator"]
    for kind in sorted({node.op_type for node in nodes}) if not changed else ():
        since = [defs.get_schema(kind, version).since_version for version in (own, opset)]
        if since[0] != since[1] and kind not in _SAME_MEANING:
            changed.append(kind)
    if changed:
        raise OptionError(
            f"The head's graph cannot be moved to the opset of the exported one: {', '.join(changed)}.",
            found=f"opset {own} in the head, {opset} in the exported graph",
            expected=f"an exported graph of opset {own} to {_NEWEST_OPSET}",
            hint="export with TensorRT Edge-LLM 0.11, which writes opset 24",
        )


def _append_head(
    graph: onnx.GraphProto,
    head: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    tail: DenseTail,
    index: HeadIndex,
    opset: int,
) -> None:
    """Add the head's nodes and those that make ``logits`` of its outputs."""
    builder = GraphBuilder(opset)
    states = builder.node("Cast", [tail.states], _STATES, to=_FLOAT)
    for node in nodes:
        node.input[:] = [states if name == "hidden_states" else name for name in node.input]
    builder.nodes.extend(nodes)
    chosen = next(node.input[1] for node in head.node if node.name == "/head/ids/Gather")
    _scatter(builder, chosen, index)

    names = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    used = {name for node in builder.nodes for name in node.input}
    tensors = [*(tensor for tensor in head.initializer if tensor.name in used), *builder.initializers.values()]
    made = {name for node in builder.nodes for name in node.output} | {tensor.name for tensor in tensors}
    if taken := sorted(names & made):
        raise OptionError(
            "The exported graph already has values with the head's names.",
            found=", ".join(taken[:5]),
            expected="a graph as the exporter wrote it",
        )
    graph.node.extend(builder.nodes)
    graph.initializer.extend(tensors)


def _scatter(builder: GraphBuilder, chosen: str, index: HeadIndex) -> None:
    """Candidates' logits in the order of the vocabulary, and estimates for all other tokens."""
    place = "/head/vocabulary"
    vocab = index.vocab_size
    columns, cluster_of_column = _columns(index)
    builder.constant(f"{place}/columns", columns)
    builder.constant(f"{place}/clusters", cluster_of_column)
    builder.constant(f"{place}/gap", np.array(GAP, np.float32))
    for name, number in (("start", 0), ("end", vocab), ("axis", 1)):
        builder.constant(f"{place}/{name}", np.array([number], np.int64))
    estimates = builder.node("Gather", ["cluster_scores", f"{place}/clusters"], f"{place}/estimates/Gather", axis=1)
    best = builder.reduce("ReduceMax", "candidate_logits", 1, f"{place}/best/ReduceMax", keepdims=1)
    limit = builder.node("Sub", [best, f"{place}/gap"], f"{place}/best/Sub")
    estimates = builder.node("Min", [estimates, limit], f"{place}/estimates/Min")
    ids = builder.node("Gather", [f"{place}/columns", chosen], f"{place}/columns/Gather", axis=0)
    ids = builder.node("Reshape", [ids, "/head/ids/shape"], f"{place}/columns/Reshape")
    every = builder.node("ScatterElements", [estimates, ids, "candidate_logits"], f"{place}/ScatterElements", axis=1)
    bounds = [f"{place}/{name}" for name in ("start", "end", "axis")]
    builder.node("Slice", [every, *bounds], f"{place}/Slice")
    builder.nodes[-1].output[0] = "logits"


def _columns(index: HeadIndex) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Where the logit of every slot goes, [T, C] int32, and whose score a column has first, [V + D] int32.

    Tokens that are always scored have no cluster among the K, and empty slots no token: the score of cluster 0 stands
    in their columns until it is overwritten, or cut off.
    """
    columns = index.token_order.copy()
    empty = columns < 0
    columns[empty] = index.vocab_size + np.arange(empty.sum(), dtype=np.int32)
    cluster = index.slot_of_token // index.cluster_size
    cluster[cluster >= index.num_clusters] = 0
    return columns, np.concatenate([cluster, np.zeros(empty.sum(), np.int32)]).astype(np.int32)


def _data_files(graph: onnx.GraphProto) -> set[str]:
    """Names of the data files that a graph's weights lie in."""
    return {entry.value for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"}


def _check(path: Path) -> None:
    """The checker without shape inference: it knows no shapes behind the exporter's own operators."""
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"The spliced graph {path.name} is not valid ONNX.", found=error) from error
