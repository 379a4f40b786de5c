"""Collects the nodes and tensors of a head's graph, named by their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flashhead_edge.quantize import BLOCK_SIZE

if TYPE_CHECKING:
    import onnx

    from flashhead_edge.export.tensor_ref import TensorRef

OPSET = 21
#: IR version that came with an opset.
IR_VERSIONS = {17: 8, 19: 9, 21: 10}
#: Activations may be rounded to int8 in MatMulNBits: what people run on devices, and as exact as its weights need.
ACCURACY_LEVEL = 4
_CONTRIB = "com.microsoft"
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType


@dataclass
class GraphBuilder:
    """A graph in the making; a node's outputs are ``<name>/output_<i>``.

    Attributes:
        opset: Opset of the standard operators, one of :data:`IR_VERSIONS`.
        nodes: Nodes in order.
        initializers: Tensors by name.
    """

    opset: int = OPSET
    nodes: list[Any] = field(default_factory=list)
    initializers: dict[str, Any] = field(default_factory=dict)

    def node(self, kind: str, inputs: Sequence[str], name: str, *, outputs: int = 1, **attributes: Any) -> str:
        """Add a node; returns its first output."""
        from onnx import helper

        names = [f"{name}/output_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names[0]

    def identity(self, value: str, output: str) -> None:
        """Name a value as a graph output."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [value], [output], name=f"/head/{output}/Identity"))

    def constant(self, name: str, value: Any) -> str:
        """Add a small initializer that lives in the graph."""
        from onnx import numpy_helper

        self.initializers[name] = numpy_helper.from_array(value, name)
        return name

    def reduce(self, kind: str, value: str, axis: int, name: str, *, keepdims: int) -> str:
        """Add ReduceMax, ReduceMin or the like over one axis, which moved from attribute to input in opset 18."""
        if self.opset < 18:
            return self.node(kind, [value], name, axes=[axis], keepdims=keepdims)
        axes = self.constant(f"{name}/axes", np.array([axis], np.int64))
        return self.node(kind, [value, axes], name, keepdims=keepdims)

    def external(self, tensor: TensorRef) -> None:
        """Add an initializer that lives in a data file."""
        self.initializers[tensor.name] = tensor.to_proto()

    def quantized_product(
        self, value: str, codes: TensorRef, scales: TensorRef, name: str, *, bits: int, width: int
    ) -> str:
        """Multiply [B, H] with rows in blocks of 4 or 8 bits; see :mod:`flashhead_edge.quantize`.

        Args:
            value: The left factor, [B, H] float32.
            codes: [N, ceil(H / 32), 16 or 32] uint8.
            scales: [N, ceil(H / 32)] float16.
            name: Name of the node.
            bits: 4 or 8.
            width: H.

        Returns:
            The product [B, N] float32.
        """
        self.external(codes)
        self.external(scales)
        wide = self.node("Cast", [scales.name], f"{name}/scales/Cast", to=_FLOAT)  # once: it depends on nothing else
        return self.node(
            "MatMulNBits",
            [value, codes.name, wide],
            name,
            domain=_CONTRIB,
            K=width,
            N=scales.shape[0],
            bits=bits,
            block_size=BLOCK_SIZE,
            accuracy_level=ACCURACY_LEVEL,
        )

    def activate(self, value: str, place: str, *, scale: float, softcap: float | None) -> str:
        """Apply the head's scale and soft-cap to products."""
        if scale != 1.0:
            factor = self.constant(f"{place}/scale", np.array(scale, np.float32))
            value = self.node("Mul", [value, factor], f"{place}/Scale")
        if softcap is not None:
            cap = self.constant(f"{place}/cap", np.array(softcap, np.float32))
            value = self.node("Div", [value, cap], f"{place}/Div")
            value = self.node("Tanh", [value], f"{place}/Tanh")
            value = self.node("Mul", [value, cap], f"{place}/Softcap")
        return value

    def model(
        self, name: str, width: int, outputs: Sequence[tuple[str, type[np.generic], Sequence[int]]]
    ) -> onnx.ModelProto:
        """Close a graph that takes ``hidden_states`` [B, H].

        Args:
            name: Name of the graph.
            width: H.
            outputs: Name, type (int64 or float32) and shape after the batch, of every output.
        """
        from onnx import helper

        from flashhead_edge._version import __version__

        def value(output: str, kind: type[np.generic], shape: Sequence[int]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(output, _INT64 if kind is np.int64 else _FLOAT, ["batch", *shape])

        graph = helper.make_graph(
            self.nodes,
            name,
            [value("hidden_states", np.float32, [width])],
            [value(*output) for output in outputs],
            list(self.initializers.values()),
        )
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted({node.domain for node in self.nodes} - {""})]
        return helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=IR_VERSIONS[self.opset],
            producer_name="flashhead-edge",
            producer_version=__version__,
        )
