"""The dense head at the end of a graph that TensorRT Edge-LLM's exporter wrote: found by its structure, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionError

if TYPE_CHECKING:
    import onnx

    from flashhead_edge.bundle import Bundle

LOGITS = "logits"
#: What may stand between product and output: these change no number that counts.
_PLAIN = ("Cast", "Identity", "Reshape")
_EXPECTED = "Gather - Gemm or MatMul with the head's weights - Cast - logits, as TensorRT Edge-LLM 0.11 writes it"
#: Of a row's greatest number: two roundings to float16.
_TOLERANCE = 2.0**-10
_AT_ONCE = 1 << 14  # rows compared at a time


@dataclass(frozen=True)
class DenseTail:
    """What a dense head consists of.

    Attributes:
        states: The value that it reads, [n, H] float16.
        weight: Name of its initializer.
        nodes: From the product to ``logits``.
    """

    states: str
    weight: str
    nodes: tuple[onnx.NodeProto, ...]


def find_tail(graph: onnx.GraphProto, bundle: Bundle, folder: Path) -> DenseTail:
    """Find the dense head that makes the output ``logits``.

    Args:
        graph: The exported graph.
        bundle: Whose head it should be.
        folder: Where the graph's data files lie.

    Raises:
        OptionError: There is none of the exporter's form, or it is not the bundle's head.
    """
    producers = {name: node for node in graph.node for name in node.output}
    if not any(value.name == LOGITS for value in graph.output) or LOGITS not in producers:
        found = ", ".join(value.name for value in graph.output)
        raise OptionError(f"The graph has no output {LOGITS!r}.", found=found, expected=_EXPECTED)
    nodes = [producers[LOGITS]]
    while nodes[-1].op_type in _PLAIN and nodes[-1].input[0] in producers:
        nodes.append(producers[nodes[-1].input[0]])
    product = nodes[-1]
    if product.op_type not in ("Gemm", "MatMul") or len(product.input) != 2 or product.domain:
        raise _other_tail(" - ".join(node.op_type for node in reversed(nodes)))
    inside = {name for node in nodes[1:] for name in node.output}
    readers = [node for node in graph.node if inside & set(node.input) and node not in nodes]
    if readers or any(value.name in inside for value in graph.output):
        raise _other_tail("values of the head that are used elsewhere")
    tail = DenseTail(product.input[0], product.input[1], tuple(reversed(nodes)))
    _check_weight(graph, product, producers.get(tail.weight), bundle, folder)
    return tail


def remove_tail(graph: onnx.GraphProto, tail: DenseTail) -> None:
    """Take the dense head out of the graph; its bytes stay in the data file, where nothing refers to them."""
    for node in tail.nodes:
        graph.node.remove(node)
    gone = {name for node in tail.nodes for name in node.output} | {tail.weight}
    used = {name for node in graph.node for name in node.input}
    for tensors in (graph.initializer, graph.value_info):
        for tensor in [tensor for tensor in tensors if tensor.name in gone - used]:
            tensors.remove(tensor)


def _check_weight(
    graph: onnx.GraphProto,
    product: onnx.NodeProto,
    maker: onnx.NodeProto | None,
    bundle: Bundle,
    folder: Path,
) -> None:
    """The weight must be plain, of the bundle's shape and with its rows, and nothing else done to its products."""
    from onnx import helper, numpy_helper

    name = product.input[1]
    tensor = next((tensor for tensor in graph.initializer if tensor.name == name), None)
    if tensor is None and any(value.name == name for value in graph.input):
        raise _other_tail(f"the head's weights are the input {name}", "export without --externalize-weights lm_head")
    if tensor is None:
        made_by = maker.op_type if maker else "nothing"
        raise _other_tail(
            f"the head's weights come from {made_by}", "export from a checkpoint whose lm_head is not quantized"
        )
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in product.attribute}
    by_token = bool(attributes.pop("transB", 0))
    if any(value != {"alpha": 1, "beta": 1}.get(key, 0) for key, value in attributes.items()):
        raise _other_tail(f"{product.op_type} with {attributes}")
    manifest = bundle.manifest
    expected = (manifest.vocab_size, manifest.hidden_size)
    found = tuple(tensor.dims) if by_token else tuple(tensor.dims)[::-1]
    if found != expected:
        raise OptionError(
            "The exported head has another shape than the bundle's (V, H).",
            found=found,
            expected=expected,
            hint="make both from the same model, and the export without --reduced-vocab-dir",
        )
    if manifest.logit_scale != 1 or manifest.logit_softcap is not None or manifest.has_bias:
        raise OptionError(
            "The bundle's head does more than the exported one.",
            found=f"logit scale {manifest.logit_scale}, soft-cap {manifest.logit_softcap}, bias {manifest.has_bias}",
            expected="a head without scale, soft-cap and bias: the exported one has none",
        )
    weight = numpy_helper.to_array(tensor, str(folder))
    _check_rows(weight if by_token else weight.T, bundle)


def _check_rows(rows: npt.NDArray[np.floating], bundle: Bundle) -> None:
    """Both heads must be of one model: [V, H] against the bundle's table, up to rounding."""
    index = bundle.index()
    table = bundle.rows()
    different = 0
    for start in range(0, len(rows), _AT_ONCE):
        ours = table.slots(index.slot_of_token[start : start + _AT_ONCE])
        theirs = rows[start : start + _AT_ONCE].astype(np.float32)
        limit = np.abs(ours).max(axis=1) * _TOLERANCE
        different += int((~(np.abs(ours - theirs).max(axis=1) <= limit)).sum())
    if different:
        raise OptionError(
            "The exported head has other weights than the bundle's.",
            found=f"{different} of {len(rows)} rows differ by more than their rounding to float16",
            expected="both made from the same checkpoint",
            hint="export the bundle from the folder that the Edge-LLM exporter read",
        )


def _other_tail(found: str, hint: str = "see docs/edge-llm.md for what is supported") -> OptionError:
    return OptionError(
        "The exported graph does not end in a plain dense head.", found=found, expected=_EXPECTED, hint=hint
    )
