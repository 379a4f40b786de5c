"""The decoding graphs that are measured against each other: one body, several heads."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from flashhead_edge import layout
from flashhead_edge.errors import BundleError, OptionalDependencyError
from flashhead_edge.files import check_free_space
from flashhead_edge.runtimes.graph_choice import choose_graph
from flashhead_edge.runtimes.session import CPU_PROVIDER

if TYPE_CHECKING:
    import onnx

    from flashhead_edge.bundle import Bundle

_WRITTEN = {"dense-int8": "int8", "dense-int4": "int4"}
#: What the names of other graphs end on.
_PLAIN = ".onnx"
#: The same step without a head: what it would be if that were free.
BODY_ALONE = "body alone"


def form_of(graph: Path) -> str:
    """What a graph's name ends on: that it needs the native library, is for GPUs, or neither."""
    return next(
        (suffix for suffix in (layout.NATIVE_SUFFIX, layout.CUDA_SUFFIX) if graph.name.endswith(suffix)), _PLAIN
    )


@contextmanager
def decoding_graphs(
    bundle: Bundle, heads: Sequence[str], providers: Sequence[str] = (CPU_PROVIDER,)
) -> Iterator[dict[str, Path]]:
    """Graphs by head; those that the bundle does not have are written beside it and removed afterwards.

    Args:
        bundle: A bundle with a body.
        heads: Names out of :data:`flashhead_edge.bench.options.HEADS`.
        providers: ONNX Runtime's execution providers.

    Yields:
        Path of the graph of every head; and of :data:`BODY_ALONE` in the form of the heads', where others are written.

    Raises:
        BundleError: The bundle has no body.
        RuntimeUnavailableError: The bundle was exported without its graphs for GPUs.
        OptionalDependencyError: A dense int8 or int4 head is asked for, and onnx is not installed.
        ExportError: The disk is full.
    """
    if bundle.manifest.body is None:
        raise BundleError(
            "The bundle has no body, and a decode step needs the whole model.",
            found="a bundle with a head alone",
            hint="export the model again without --no-body",
        )
    own = {
        "two-stage": lambda: choose_graph(bundle, "decode", providers),
        "two-stage-portable": lambda: bundle.file(bundle.graph("decode").file),
        "dense-fp32": lambda: choose_graph(bundle, "dense", providers),
    }
    graphs = {head: own[head]() for head in heads if head in own}
    written = [head for head in heads if head in _WRITTEN]
    if not written:
        yield graphs
        return
    if find_spec("onnx") is None:
        raise OptionalDependencyError("onnx", "export", "Measuring a dense int8 or int4 head")
    with tempfile.TemporaryDirectory(prefix=".flashhead-bench-", dir=bundle.path.parent) as folder:
        precisions = [_WRITTEN[head] for head in written]
        graphs |= write_dense_graphs(bundle, precisions, Path(folder), providers)
        dense = choose_graph(bundle, "dense", providers)
        graphs[BODY_ALONE] = without_head(Path(folder) / dense.name, Path(folder) / f"body{form_of(dense)}")
        yield graphs


def write_dense_graphs(
    bundle: Bundle, precisions: Sequence[str], folder: Path, providers: Sequence[str] = (CPU_PROVIDER,)
) -> dict[str, Path]:
    """Join the bundle's body with dense heads, as people ship them.

    Args:
        bundle: A bundle with a body.
        precisions: "int8" and "int4".
        folder: Where graphs, and copies of the bundle's data that they read, go.
        providers: ONNX Runtime's execution providers.

    Returns:
        Graphs by head, such as "dense-int8".

    Raises:
        ExportError: The disk is full.
    """
    from flashhead_edge.export.dense_head import write_dense_head
    from flashhead_edge.export.evaluate import dense_head

    chosen = choose_graph(bundle, "dense", providers)
    dense, form = chosen.name, form_of(chosen)
    # Copies, not links: onnx refuses data files that are linked, lest a model reads what is not its own.
    data = [name for name in bundle.manifest.files if name.endswith(".data")]
    check_free_space(folder, 2 * sum(bundle.manifest.files[name].bytes for name in data))
    for name in (*data, dense):
        shutil.copyfile(bundle.path / name, folder / name)
    head = dense_head(bundle)
    graphs = {}
    for precision in precisions:
        written = write_dense_head(head, precision, folder, f"head-{precision}.onnx")  # type: ignore[arg-type]
        graphs[f"dense-{precision}"] = with_head(folder / dense, written, folder / f"decode-{precision}{form}")
    return graphs


def without_head(decoding: Path, output: Path) -> Path:
    """Leave a decoding graph's head out: from ids to the states that a head would see; ``output`` is returned."""
    from flashhead_edge.export.graph_files import check_graph, load_graph, save_graph

    model = load_graph(decoding)
    _remove_head(model.graph)
    save_graph(model, output)
    check_graph(output)
    return output


def with_head(decoding: Path, head: Path, output: Path) -> Path:
    """Put another head into a decoding graph; nodes of heads are named ``/head/...``.

    Args:
        decoding: A decoding graph.
        head: A head's graph, over data in the folder of ``output``.
        output: File to write.

    Returns:
        ``output``.
    """
    from flashhead_edge.export.graph_files import check_graph, load_graph, save_graph

    model, other = load_graph(decoding), load_graph(head)
    graph = model.graph
    _remove_head(graph)
    for value in other.graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "scored"
    graph.input.extend(value for value in other.graph.input if value.name == layout.GREEDY_INPUT)
    graph.node.extend(other.graph.node)
    shared = {tensor.name for tensor in graph.initializer}  # of a tied embedding
    graph.initializer.extend(tensor for tensor in other.graph.initializer if tensor.name not in shared)
    outputs = list(graph.output)
    del graph.output[:]
    graph.output.extend([*other.graph.output, *outputs])
    domains = {opset.domain for opset in model.opset_import}
    model.opset_import.extend(opset for opset in other.opset_import if opset.domain not in domains)
    save_graph(model, output)
    check_graph(output)
    return output


def _remove_head(graph: onnx.GraphProto) -> None:
    """Remove a head's nodes, and what nothing else reads or makes; in place."""
    kept = [node for node in graph.node if not node.name.startswith("/head/")]
    produced = {name for node in graph.node if node.name.startswith("/head/") for name in node.output}
    read = {name for node in kept for name in node.input}
    for values, wanted in (
        (graph.node, kept),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in read]),
        (graph.input, [value for value in graph.input if value.name != layout.GREEDY_INPUT]),
        (graph.output, [value for value in graph.output if value.name not in produced]),
        (graph.value_info, [value for value in graph.value_info if value.name not in produced]),
    ):
        del values[:]
        values.extend(wanted)
