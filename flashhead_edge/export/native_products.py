"""Low-bit products by the native library instead of ONNX Runtime: weights stay where they are mapped from the file.

ONNX Runtime packs a copy of every weight, about as large as the file, and on some processors a row alone gets other
last bits than among others. ``flashhead_edge::MatMulNBits`` has the inputs and attributes of ONNX Runtime's operator as
bundles use them, so a node keeps its tensors; scales it reads in half precision, as they are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flashhead_edge.export.native_graph import make_native
from flashhead_edge.quantize import BLOCK_SIZE

if TYPE_CHECKING:
    import onnx

_UINT8, _HALF = 2, 10  # TensorProto.DataType
_DOMAIN, _OP = "com.microsoft", "MatMulNBits"
#: Inputs that both operators have: states, codes, scales, zero points.
_INPUTS = 4
_SCALES = 2
_ATTRIBUTES = ("K", "N", "bits", "block_size")
#: States are rounded to 8 bits only where the graph allows it.
_ROUNDS_STATES = 4


def use_native_products(model: onnx.ModelProto) -> int:
    """Change the low-bit products of a graph in place; those that the operator cannot do stay as they are.

    Args:
        model: A graph whose weights are initializers.

    Returns:
        How many nodes were changed.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    widened = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    changed = 0
    for node in model.graph.node:
        inputs = [widened.get(name, name) if place == _SCALES else name for place, name in enumerate(node.input)]
        attributes = _attributes(node, inputs, weights)
        if attributes is not None:
            make_native(model, node, attributes)
            node.input[_SCALES] = inputs[_SCALES]
            changed += 1
    read = {name for node in model.graph.node for name in node.input}
    kept = [node for node in model.graph.node if not widened.keys() & set(node.output) or node.output[0] in read]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return changed


def _attributes(node: onnx.NodeProto, inputs: list[str], weights: dict[str, onnx.TensorProto]) -> dict[str, Any] | None:
    """Attributes for the native operator, or None if it does not do what the node does."""
    from onnx import helper

    if (node.domain, node.op_type) != (_DOMAIN, _OP) or any(inputs[_INPUTS:]):
        return None
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    types = [weights[name].data_type if name in weights else None for name in inputs[1:_INPUTS] if name]
    fits = (
        found.get("bits", 4) in (4, 8)
        and found.get("block_size") == BLOCK_SIZE
        and found.get("accuracy_level") == _ROUNDS_STATES
        and types in ([_UINT8, _HALF], [_UINT8, _HALF, _UINT8])
    )
    if not fits:
        return None
    norms = {"epsilon": 0.0, "branch_epsilon": 0.0}  # of a residual before it, which it may take over
    return {"bits": 4} | {name: found[name] for name in _ATTRIBUTES if name in found} | norms
