"""Attention by the native library instead of ONNX Runtime: a position's result has the same bits in every step.

ONNX Runtime multiplies one row by other kernels than several, so a token fed alone gets other last bits than the same
token among drafted ones. In bodies that round activations to 8 bits a rounding then falls the other way, and greedy
texts part. ``flashhead_edge::GroupQueryAttention`` has the inputs, outputs and attributes of ONNX Runtime's own
operator, so only the domain changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flashhead_edge.export.body_graph import CACHE_INPUT
from flashhead_edge.export.native_graph import make_native

if TYPE_CHECKING:
    import onnx

_FLOAT = 1  # TensorProto.DataType
_DOMAIN, _OP = "com.microsoft", "GroupQueryAttention"
#: Inputs that both operators have: up to the rotary tables.
_INPUTS = 9
#: Attributes that the operator has, with ONNX Runtime's defaults; "scale" 0 stands for 1 / sqrt(D) there.
_DEFAULTS = {"softcap": 0.0, "local_window_size": -1, "do_rotary": 0, "rotary_interleaved": 0}
_REQUIRED = ("num_heads", "kv_num_heads", "scale")


def use_native_attention(model: onnx.ModelProto) -> bool:
    """Change the operators of a graph's attention in place, if all of them can be changed.

    Args:
        model: A graph with a cache.

    Returns:
        Whether it was done; otherwise the graph is as it was.
    """
    nodes = [node for node in model.graph.node if (node.domain, node.op_type) == (_DOMAIN, _OP)]
    caches = [value for value in model.graph.input if CACHE_INPUT.fullmatch(value.name)]
    attributes = [found for node in nodes if (found := _attributes(node)) is not None]
    is_float = all(value.type.tensor_type.elem_type == _FLOAT for value in caches)
    if not is_float or not nodes or len(attributes) < len(nodes):
        return False
    for node, found in zip(nodes, attributes, strict=True):
        make_native(model, node, found)
    return True


def _attributes(node: onnx.NodeProto) -> dict[str, Any] | None:
    """Attributes for the native operator, or None if it does not do what the node does."""
    from onnx import helper

    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    wanted = {**_DEFAULTS, **{name: found.pop(name) for name in list(found) if name in (*_DEFAULTS, *_REQUIRED)}}
    others = any(node.input[_INPUTS:]) or any(node.output[3:])
    if others or any(found.values()) or not wanted.get("scale") or any(name not in wanted for name in _REQUIRED):
        return None
    return wanted | {"norm_epsilon": 0.0}  # of norms before it, which it may take over
