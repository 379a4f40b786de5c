"""Gated feed-forward layers by one operator of the native library: both products, the activation, and their product.

::

    states -- MatMulNBits (gate) -- SiLU, or GELU by tanh -- Mul -->   is   states -- GatedMatMulNBits -->
         '--- MatMulNBits (up) ------------------------------'

States are rounded once instead of twice, and the threads meet once instead of four times.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

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
    graph = model.graph
    maker = {output: node for node in graph.node for output in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    replaced: dict[str, onnx.NodeProto] = {}
    dropped: set[str] = set()
    for node in graph.node:
        found = _gated(node, maker, uses)
        if found is not None:
            replaced[node.output[0]], inner = found
            dropped |= inner
    kept = [replaced.get(node.output[0], node) for node in graph.node if node.output[0] not in dropped]
    del graph.node[:]
    graph.node.extend(kept)
    return len(replaced)


def _gated(
    node: onnx.NodeProto, maker: dict[str, onnx.NodeProto], uses: Counter[str]
) -> tuple[onnx.NodeProto, set[str]] | None:
    """The operator in place of a last Mul, and what it makes superfluous; None where the node is none."""
    from onnx import helper

    if node.op_type != "Mul" or len(node.input) != 2:
        return None
    for activated, other in (tuple(node.input), tuple(node.input)[::-1]):
        found = _activation(activated, maker)
        if found is None:
            continue
        kind, source, between = found
        gate, up = maker.get(source), maker.get(other)
        if gate is None or up is None or not _fit(gate, up):
            continue
        # The gate's product goes nowhere else: SiLU takes it twice.
        inner = {source: 2 if len(between) == 2 else 1, other: 1} | dict.fromkeys(between, 1)
        if any(uses[name] != count for name, count in inner.items()):
            continue
        weights = [*_three(gate), *_three(up)]
        attributes = {item.name: helper.get_attribute_value(item) for item in gate.attribute}
        joined = helper.make_node(
            _GATED,
            [gate.input[0], *weights],
            list(node.output),
            name=node.name,
            domain=NATIVE_DOMAIN,
            activation=kind,
            **attributes,
        )
        return joined, set(inner)
    return None


def _activation(name: str, maker: dict[str, onnx.NodeProto]) -> tuple[int, str, tuple[str, ...]] | None:
    """Which activation makes a value, of what, and the values in between, itself included."""
    from onnx import helper

    node = maker.get(name)
    if node is None:
        return None
    if node.op_type == "Gelu" and not node.domain:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        return (_GELU_TANH, node.input[0], (name,)) if attributes.get("approximate") == b"tanh" else None
    if node.op_type == "Mul" and len(node.input) == 2:
        for source, logistic in (tuple(node.input), tuple(node.input)[::-1]):
            other = maker.get(logistic)
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
