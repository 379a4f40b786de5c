"""Norms of queries and keys as part of the native library's attention, as Gemma 3 and Qwen 3 have them.

::

    packed -- Split -- Reshape -- RMS norm -- Reshape --> query
                 |---- Reshape -- RMS norm -- Reshape --> key      is   packed, both weights --> attention
                 '--------------------------------------> value

A layer of Gemma 3 has seven nodes less than ONNX Runtime would leave of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.export.graph_patterns import GraphView, RmsNorm, absorb, rms_norm
from flashhead_edge.export.native_graph import NATIVE_DOMAIN

if TYPE_CHECKING:
    import onnx

_ATTENTION = "GroupQueryAttention"
_EPSILON = "norm_epsilon"
#: Inputs of the operator: queries, keys and values first, both norms' weights last.
_QUERY, _KEY, _VALUE, _NORMS = 0, 1, 2, 9


def use_native_norms(model: onnx.ModelProto) -> int:
    """Take the norms before the native library's attention into it, in place.

    Args:
        model: A graph after :func:`~flashhead_edge.export.native_attention.use_native_attention`.

    Returns:
        How many operators took theirs.
    """
    return absorb(model.graph, _take_norms)


def _take_norms(node: onnx.NodeProto, view: GraphView) -> set[str]:
    """Change an operator; the values that are then superfluous, none where it stays as it is."""
    if (node.domain, node.op_type) != (NATIVE_DOMAIN, _ATTENTION) or not node.input[_KEY]:
        return set()
    query, key = (_norm_of_heads(node.input[place], view) for place in (_QUERY, _KEY))
    if query is None or key is None or query.epsilon != key.epsilon:
        return set()
    inner = {*query.between, *key.between}
    sources = [query.source, key.source, node.input[_VALUE]]
    split = view.maker.get(query.source)
    is_packed = split is not None and split.op_type == "Split" and list(split.output) == sources
    if split is not None and is_packed and all(view.uses[name] == 1 for name in sources):
        inner |= set(sources)
        sources = [split.input[0], "", ""]
    inputs = [*node.input, *[""] * _NORMS][:_NORMS]
    inputs[: _VALUE + 1] = sources
    del node.input[:]
    node.input.extend([*inputs, query.weight, key.weight])
    next(item for item in node.attribute if item.name == _EPSILON).f = query.epsilon
    return inner


def _norm_of_heads(name: str, view: GraphView) -> RmsNorm | None:
    """The norm of every head that makes a value, between two reshapes."""
    joined = view.inner(name, "Reshape")
    norm = joined and rms_norm(joined.input[0], view)
    heads = norm and view.inner(norm.source, "Reshape", uses=2)
    if not joined or not norm or not heads or view.numbers(heads.input[1])[-1:] != [view.width(norm.weight)]:
        return None
    return norm._replace(source=heads.input[0], between=(*norm.between, name, norm.source))
