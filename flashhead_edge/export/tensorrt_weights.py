"""Weights as inputs of a graph: one engine of a megabyte for all weights of the same shapes and types."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def weights_as_inputs(model: onnx.ModelProto) -> list[str]:
    """Turn the initializers that lie in data files into inputs, in place.

    Args:
        model: A head's graph. Its first input stays ``hidden_states``.

    Returns:
        Names of the new inputs, in their order; shapes and types are those of the tensors.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    stay = []
    names = []
    for tensor in graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
            names.append(tensor.name)
        else:
            stay.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(stay)
    return names
