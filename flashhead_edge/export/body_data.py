"""The body's weights in their own file, with the scales of low-bit products in half precision.

The model builder writes float32 scales, a fifth of the bytes of an int4 body. ``MatMulNBits`` wants scales of the type
of its states, so the graph widens them: once, when a runtime opens it. The native library reads them as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import BodyExportError, WeightError
from flashhead_edge.export.tensor_ref import DataFile
from flashhead_edge.quantize import half_precision

if TYPE_CHECKING:
    import onnx

_FLOAT = 1  # TensorProto.DataType
_SCALES = 2  # input of MatMulNBits
_OP = "MatMulNBits"


def write_body_data(model: onnx.ModelProto, source: Path, target: Path) -> None:
    """Write the weights that a graph has in a file into another, and let the graph refer to that.

    Args:
        model: The graph, loaded without its external data; changed in place.
        source: The file that its tensors lie in.
        target: The file to create.

    Raises:
        BodyExportError: A scale does not fit into half precision.
    """
    halved = _widen_scales(model.graph)
    with DataFile(target) as data:
        for tensor in model.graph.initializer:
            if tensor.data_location != tensor.EXTERNAL:
                continue
            values = _mapped(tensor, source)
            if tensor.name in halved:
                try:
                    values = half_precision(values).astype(np.float16)
                except WeightError as error:
                    raise BodyExportError(
                        "A scale of the body's weights does not fit into half precision.",
                        found=error.found,
                        expected=error.expected,
                        hint="export with --body-precision fp32",
                    ) from error
            tensor.CopyFrom(data.append(tensor.name, values).to_proto())


def _widen_scales(graph: onnx.GraphProto) -> set[str]:
    """Put a Cast between scales and products; returns the names of the scales."""
    from onnx import helper

    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == _FLOAT}
    nodes: list[onnx.NodeProto] = []
    halved: set[str] = set()
    for node in graph.node:
        if node.op_type == _OP and node.input[_SCALES] in weights:
            name = node.input[_SCALES]
            wide = f"{name}.wide"
            if name not in halved:
                nodes.append(helper.make_node("Cast", [name], [wide], name=wide, to=_FLOAT))
                halved.add(name)
            node.input[_SCALES] = wide
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return halved


def _mapped(tensor: onnx.TensorProto, file: Path) -> npt.NDArray[Any]:
    """Map an external tensor."""
    from onnx import helper

    place = {entry.key: entry.value for entry in tensor.external_data}
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.memmap(file, dtype=dtype, mode="r", offset=int(place.get("offset", 0)), shape=tuple(tensor.dims))
