"""Residual connections and their norms as part of the native library's products.

::

    residual --------------- SkipSimplifiedLayerNormalization -- normed --> product
    branch -- (RMS norm) ----'            '--- sum -->

is one product that is given the branch, the residual and the norms' weights, and returns the sum too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.export.graph_patterns import GraphView, absorb, rms_norm
from flashhead_edge.export.native_graph import NATIVE_DOMAIN

if TYPE_CHECKING:
    import onnx

_SKIP, _DOMAIN = "SkipSimplifiedLayerNormalization", "com.microsoft"
#: The operators, and how many inputs come before the residual's.
_PRODUCTS = {"MatMulNBits": 4, "GatedMatMulNBits": 7}
_NORMED, _SUM = 0, 3


def use_native_residuals(model: onnx.ModelProto) -> int:
    """Take residual connections into the products after them, in place.

    Args:
        model: A graph after :func:`~flashhead_edge.export.native_products.use_native_products` and
            :func:`~flashhead_edge.export.native_gates.use_native_gates`.

    Returns:
        How many products took theirs.
    """
    return absorb(model.graph, _take_residual)


def _take_residual(node: onnx.NodeProto, view: GraphView) -> set[str]:
    """Change a product; the values that are then superfluous, none where it stays as it is."""
    if node.domain != NATIVE_DOMAIN or node.op_type not in _PRODUCTS:
        return set()
    normed = node.input[0]
    skip = view.maker.get(normed)
    if skip is None or (skip.domain, skip.op_type) != (_DOMAIN, _SKIP) or view.uses[normed] != 1:
        return set()
    outputs = [*skip.output, *[""] * _SUM][: _SUM + 1]
    attributes = {item.name: item.f for item in skip.attribute}
    others = outputs[_NORMED + 1 : _SUM] + list(skip.input[3:])
    if outputs[_NORMED] != normed or any(others) or set(attributes) != {"epsilon"} or view.width(skip.input[2]) is None:
        return set()
    inner, branch_norm, branch_epsilon = {normed}, "", 0.0
    residual, branch = skip.input[:2]
    for stream, other in ((residual, branch), (branch, residual)):
        norm = rms_norm(other, view)
        if norm is not None:
            residual, branch, branch_norm, branch_epsilon = stream, norm.source, norm.weight, norm.epsilon
            inner |= set(norm.between)
            break
    inputs = [*node.input, *[""] * _PRODUCTS[node.op_type]][: _PRODUCTS[node.op_type]]
    inputs[0] = branch
    del node.input[:]
    node.input.extend([*inputs, residual, skip.input[2], branch_norm])
    if outputs[_SUM]:
        node.output.append(outputs[_SUM])
    for item in node.attribute:
        if item.name == "epsilon":
            item.f = attributes["epsilon"]
        elif item.name == "branch_epsilon":
            item.f = branch_epsilon
    return inner
