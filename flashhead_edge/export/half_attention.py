"""Attention in half precision, which is all that ONNX Runtime's operator knows on NVIDIA GPUs.

Of a float32 operator there is only the CPU's, so ONNX Runtime would leave attention to the CPU and carry its inputs and
outputs there and back. The rest of the graph stays float32::

    q, k, v -- Cast --> float16 |
    past (float16) -----------> | GroupQueryAttention --> Cast --> float32
    cos, sin -- Cast ---------> |        |--> present (float16)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.export.body_graph import cache_values

if TYPE_CHECKING:
    import onnx

_FLOAT, _HALF = 1, 10  # TensorProto.DataType
_OP = ("com.microsoft", "GroupQueryAttention")
#: Inputs that have the type of the states: query, key, value, and the rotary tables.
_STATES = (0, 1, 2, 7, 8)


def use_half_attention(model: onnx.ModelProto) -> None:
    """Let the attention of a graph, and its cache, be float16; in place.

    Args:
        model: A graph with a cache; one whose cache is float16 already stays as it is.
    """
    from onnx import helper

    graph = model.graph
    cache = cache_values(graph)
    if any(value.type.tensor_type.elem_type != _FLOAT for value in cache):
        return
    for value in cache:
        value.type.tensor_type.elem_type = _HALF
    halves: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if (node.domain, node.op_type) != _OP:
            nodes.append(node)
            continue
        for place in _STATES:
            name = node.input[place] if place < len(node.input) else ""
            if not name:
                continue
            if name not in halves:
                halves[name] = f"{name}/half"
                nodes.append(helper.make_node("Cast", [name], [halves[name]], f"{name}/Cast_half", to=_HALF))
            node.input[place] = halves[name]
        wide = node.output[0]
        node.output[0] = f"{wide}/half"
        nodes += [node, helper.make_node("Cast", [node.output[0]], [wide], f"{wide}/Cast_float", to=_FLOAT)]
    del graph.node[:]
    graph.node.extend(nodes)
