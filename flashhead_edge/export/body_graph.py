"""Makes the model builder's graph a standard one: it passes the ONNX checker and says its cache's shape.

The builder writes RMS norms as ``SimplifiedLayerNormalization``, an op that only ONNX Runtime knows although it stands
in the standard domain. Spelled out, ONNX Runtime fuses it back when it loads the graph, bit for bit::

    x -> Pow(2) -> ReduceMean -> Add(epsilon) -> Sqrt -> Div(x, .) -> Mul(weight)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from flashhead_edge.errors import BodyExportError

if TYPE_CHECKING:
    import onnx

CACHE_INPUT = re.compile(r"past_key_values\.(\d+)\.(key|value)")
CACHE_OUTPUT = re.compile(r"present\.(\d+)\.(key|value)")
_TWO, _AXES, _EPSILON = "/model/norm/two", "/model/norm/axes", "/model/norm/epsilon"


def tidy_body(model: onnx.ModelProto, *, head_dim: int, metadata: dict[str, str]) -> None:
    """Change the builder's graph in place; the weights stay in their file.

    Args:
        model: The graph, loaded without its external data.
        head_dim: Last dimension of the cache, which the builder leaves symbolic.
        metadata: Facts to record in the graph.
    """
    _spell_out_norms(model.graph)
    for node in model.graph.node:
        while node.input and not node.input[-1]:
            del node.input[-1]  # omitted inputs at the end count for older runtimes with fewer of them
    _keep_needed_shapes(model.graph)
    for value in cache_values(model.graph):
        value.type.tensor_type.shape.dim[3].dim_value = head_dim
    # The builder appends the commit of whatever repository it was started in.
    model.producer_version = model.producer_version.partition("+")[0]
    for key, text in metadata.items():
        model.metadata_props.add(key=f"flashhead_edge.{key}", value=text)


def cache_values(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The cache's inputs and outputs, [B, kv heads, positions, head dim] each."""
    inputs = [value for value in graph.input if CACHE_INPUT.fullmatch(value.name)]
    return inputs + [value for value in graph.output if CACHE_OUTPUT.fullmatch(value.name)]


def check_interface(graph: onnx.GraphProto, *, num_layers: int, num_kv_heads: int, hidden_size: int) -> None:
    """Make sure that inputs and outputs are the contract's and that every layer caches keys and values alike.

    Raises:
        BodyExportError: A model with other inputs (recurrent states, positions) or another cache came out.
    """
    kinds = [f"{layer}.{kind}" for layer in range(num_layers) for kind in ("key", "value")]
    expected = {"inputs_embeds", "attention_mask", *(f"past_key_values.{kind}" for kind in kinds)}
    _same("inputs", {value.name for value in graph.input}, expected)
    _same("outputs", {value.name for value in graph.output}, {"hidden_states", *(f"present.{kind}" for kind in kinds)})
    heads = {value.type.tensor_type.shape.dim[1].dim_value for value in cache_values(graph)}
    if heads != {num_kv_heads}:
        raise BodyExportError(
            "The layers' caches do not have equal shapes.", found=sorted(heads), expected=num_kv_heads
        )
    width = next(v for v in graph.output if v.name == "hidden_states").type.tensor_type.shape.dim[2].dim_value
    if width != hidden_size:
        raise BodyExportError("The body's hidden states have another size.", found=width, expected=hidden_size)


def _same(what: str, found: set[str], expected: set[str]) -> None:
    if found != expected:
        raise BodyExportError(
            f"The exported decoder has unusual {what}.",
            found=f"additional {sorted(found - expected)[:6]}, missing {sorted(expected - found)[:6]}",
            expected="embeddings, attention mask and one key-value cache per layer",
            hint="export without a body (--no-body) and run the decoder with its own runtime",
        )


def _spell_out_norms(graph: onnx.GraphProto) -> None:
    """Replace every ``SimplifiedLayerNormalization`` by standard ops."""
    from onnx import numpy_helper

    nodes: list[onnx.NodeProto] = []
    epsilons: dict[float, str] = {}
    for node in graph.node:
        nodes += _norm(node, epsilons) if node.op_type == "SimplifiedLayerNormalization" else [node]
    if not epsilons:
        return
    del graph.node[:]
    graph.node.extend(nodes)
    constants = {_TWO: np.float32(2), _AXES: np.array([-1], np.int64)}
    constants |= {name: np.float32(epsilon) for epsilon, name in epsilons.items()}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())


def _norm(node: onnx.NodeProto, epsilons: dict[float, str]) -> Iterator[onnx.NodeProto]:
    """The standard ops of one RMS norm over the last axis; notes its epsilon."""
    from onnx import helper

    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if attributes.get("axis", -1) != -1 or len([name for name in node.output if name]) != 1:
        raise BodyExportError(f"The norm {node.name!r} is not one over the last axis.", found=attributes)
    rows, weight = node.input
    epsilon = epsilons.setdefault(attributes["epsilon"], f"{_EPSILON}_{len(epsilons)}")

    def result(op: str) -> str:
        return f"{node.name}/{op}/output_0"

    steps: tuple[tuple[str, list[str], str], ...] = (
        ("Pow", [rows, _TWO], result("Pow")),
        ("ReduceMean", [result("Pow"), _AXES], result("ReduceMean")),
        ("Add", [result("ReduceMean"), epsilon], result("Add")),
        ("Sqrt", [result("Add")], result("Sqrt")),
        ("Div", [rows, result("Sqrt")], result("Div")),
        ("Mul", [result("Div"), weight], node.output[0]),
    )
    for op, inputs, output in steps:
        yield helper.make_node(op, inputs, [output], name=f"{node.name}/{op}")


def _keep_needed_shapes(graph: onnx.GraphProto) -> None:
    """Keep the shapes that inference cannot find, those of contrib ops: some of the builder's others are wrong."""
    needed = {name for node in graph.node if node.domain for name in node.output}
    kept = [value for value in graph.value_info if value.name in needed]
    del graph.value_info[:]
    graph.value_info.extend(kept)
