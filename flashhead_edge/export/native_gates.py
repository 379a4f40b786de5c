"""Gated feed-forward layers by one operator of the native library: both products, the activation, and their product.

::

    states -- MatMulNBits (gate) -- SiLU, or GELU by tanh -- Mul -->   is   states -- GatedMatMulNBits -->
         '--- MatMulNBits (up) ------------------------------'

States are rounded once instead of twice, and the threads meet once instead of four times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.export.graph_patterns import GraphView, absorb
from flashhead_edge.export.native_graph import NATIVE_DOMAIN

if TYPE_CHECKING:
    import onnx

_PRODUCT, _GATED = "MatMulNBits", "GatedMatMulNBits"
_SILU, _GELU_TANH = 0, 1


def use_native_gates(model: onnx.ModelProto) -> int:
    """Join the gated products of a graph in place, where both are the native library's.

    Args:
        model: A graph after :func:`~flashhead_edge.export.native_products.use_native_products`.

    Returns:
        How many were joined.
    """
    return absorb(model.graph, _take_gate)


def _take_gate(node: onnx.NodeProto, view: GraphView) -> set[str]:
    """Make a last Mul the operator; the values that are then superfluous, none where it stays as it is."""
    from onnx import helper

    if node.op_type != "Mul" or len(node.input) != 2:
        return set()
    for activated, other in (tuple(node.input), tuple(node.input)[::-1]):
        found = _activation(activated, view)
        if found is None:
            continue
        kind, source, between = found
        gate, up = view.maker.get(source), view.maker.get(other)
        if gate is None or up is None or not _fit(gate, up):
            continue
        # The gate's product goes nowhere else: SiLU takes it twice.
        inner = {source: 2 if len(between) == 2 else 1, other: 1} | dict.fromkeys(between, 1)
        if any(view.uses[name] != count for name, count in inner.items()):
            continue
        node.op_type, node.domain = _GATED, NATIVE_DOMAIN
        del node.input[:], node.attribute[:]
        node.input.extend([gate.input[0], *_three(gate), *_three(up)])
        node.attribute.extend([*gate.attribute, helper.make_attribute("activation", kind)])
        return set(inner)
    return set()


def _activation(name: str, view: GraphView) -> tuple[int, str, tuple[str, ...]] | None:
    """Which activation makes a value, of what, and the values in between, itself included."""
    from onnx import helper

    node = view.maker.get(name)
    if node is None:
        return None
    if node.op_type == "Gelu" and not node.domain:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        return (_GELU_TANH, node.input[0], (name,)) if attributes.get("approximate") == b"tanh" else None
    if node.op_type == "Mul" and len(node.input) == 2:
        for source, logistic in (tuple(node.input), tuple(node.input)[::-1]):
            other = view.maker.get(logistic)
            if other is not None and other.op_type == "Sigmoid" and other.input[0] == source:
                return _SILU, source, (name, logistic)
    return None


def _fit(gate: onnx.NodeProto, up: onnx.NodeProto) -> bool:
    """Whether two nodes are products of the same states with weights of the same shape."""

    def attributes(node: onnx.NodeProto) -> list[bytes]:
        return sorted(item.SerializeToString(deterministic=True) for item in node.attribute)

    native = all((node.domain, node.op_type) == (NATIVE_DOMAIN, _PRODUCT) for node in (gate, up))
    return native and gate.input[0] == up.input[0] and attributes(gate) == attributes(up)


def _three(node: onnx.NodeProto) -> list[str]:
    """Codes, scales and zero points, "" where there are none."""
    return [*node.input[1:4], ""][:3]
