"""Finding groups of nodes in a body's graph that one operator of the native library can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import onnx


class GraphView:
    """What is looked up in a graph, by the name of a value; it does not follow changes.

    Args:
        graph: The graph.

    Attributes:
        maker: The node that makes a value.
        constants: Initializers.
        uses: How often a value is read, the graph's outputs included.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.maker = {output: node for node in graph.node for output in node.output if output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.uses.update(value.name for value in graph.output)

    def inner(self, name: str, kind: str, *, uses: int = 1) -> onnx.NodeProto | None:
        """The standard node of a kind that makes a value which is read so many times, or None."""
        node = self.maker.get(name)
        fits = node is not None and node.op_type == kind and not node.domain and self.uses[name] == uses
        return node if fits else None

    def numbers(self, name: str) -> list[float]:
        """Numbers of a small constant, an initializer inside the graph's file or a node; empty for anything else."""
        from onnx import TensorProto, helper, numpy_helper

        tensor, node = self.constants.get(name), self.maker.get(name)
        if node is not None and node.op_type == "Constant" and len(node.attribute) == 1:
            value = helper.get_attribute_value(node.attribute[0])
            tensor = value if isinstance(value, TensorProto) else None
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return []
        return [float(number) for number in numpy_helper.to_array(tensor).ravel()]

    def width(self, name: str) -> int | None:
        """Length of an initializer of one dimension, or None."""
        tensor = self.constants.get(name)
        return int(tensor.dims[0]) if tensor is not None and len(tensor.dims) == 1 else None


class RmsNorm(NamedTuple):
    """An RMS norm over the last axis.

    Attributes:
        source: What it reads.
        weight: The initializer of its weights.
        epsilon: Added to the mean of the squares.
        between: Values that it makes on the way, its result included, but for ``source``.
    """

    source: str
    weight: str
    epsilon: float
    between: tuple[str, ...]


def rms_norm(name: str, view: GraphView) -> RmsNorm | None:
    """The norm that makes a value, as :mod:`flashhead_edge.export.body_graph` spells it out; None where none does.

    Neither its result nor anything in it may be read elsewhere, and its source by the norm alone.

    Args:
        name: The value.
        view: Of the graph.
    """
    scaled = view.inner(name, "Mul")
    divided = scaled and view.inner(scaled.input[0], "Div")
    root = divided and view.inner(divided.input[1], "Sqrt")
    shifted = root and view.inner(root.input[0], "Add")
    mean = shifted and view.inner(shifted.input[0], "ReduceMean")
    power = mean and view.inner(mean.input[0], "Pow")
    if not (scaled and divided and root and shifted and mean and power):
        return None
    source, weight = divided.input[0], scaled.input[1]
    epsilon = view.numbers(shifted.input[1])
    if power.input[0] != source or view.uses[source] != 2 or view.width(weight) is None or len(epsilon) != 1:
        return None
    if view.numbers(power.input[1]) != [2] or view.numbers(mean.input[1]) != [-1]:
        return None
    inner = (scaled, divided, root, shifted, mean, power)
    return RmsNorm(source, weight, epsilon[0], tuple(node.output[0] for node in inner))


def absorb(graph: onnx.GraphProto, change: Callable[[onnx.NodeProto, GraphView], set[str]]) -> int:
    """Let nodes take over what others do, in place.

    Args:
        graph: The graph.
        change: Changes a node and returns the values that are then superfluous, each a node's first output; none where
            the node stays as it is. Its view counts what was read before any change.

    Returns:
        How many nodes were changed.
    """
    view = GraphView(graph)
    taken = [change(node, view) for node in graph.node]
    superfluous = set().union(*taken)
    kept = [node for node in graph.node if node.output[0] not in superfluous]
    del graph.node[:]
    graph.node.extend(kept)
    return sum(map(bool, taken))
