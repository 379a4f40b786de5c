"""Single low-bit products: a graph with one ``MatMulNBits``, ONNX Runtime's or the native library's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper

from flashhead_edge import native
from flashhead_edge.export.native_products import use_native_products

_Float32 = npt.NDArray[np.float32]
_Uint8 = npt.NDArray[np.uint8]


class Weight(NamedTuple):
    """A weight in blocks of 32 codes.

    Attributes:
        codes: [N, blocks, 4 * bits] uint8.
        scales: [N, blocks] float16.
        zeros: Zero points, packed as codes are, [N, bytes] uint8; None for the middle.
        bits: 4 or 8.
        width: K.
    """

    codes: _Uint8
    scales: npt.NDArray[np.float16]
    zeros: _Uint8 | None
    bits: int
    width: int


def random_weight(rows: int, width: int, bits: int, *, zeros: bool = True, seed: int = 0) -> Weight:
    """Codes of every value; scales of either sign."""
    random = np.random.default_rng(seed)
    blocks = -(-width // 32)
    packed = (blocks + 1) // 2 if bits == 4 else blocks
    return Weight(
        random.integers(0, 256, (rows, blocks, 4 * bits), dtype=np.uint8),
        (random.uniform(0.01, 0.02, (rows, blocks)) * random.choice([-1, 1], (rows, blocks))).astype(np.float16),
        random.integers(0, 256, (rows, packed), dtype=np.uint8) if zeros else None,
        bits,
        width,
    )


def product_graph(weight: Weight, *, rank: int = 2, accuracy_level: int = 4) -> onnx.ModelProto:
    """ONNX Runtime's operator: states [..., K] to products [..., N]."""
    tensors = [
        helper.make_tensor("codes", TensorProto.UINT8, weight.codes.shape, weight.codes.tobytes(), raw=True),
        helper.make_tensor("scales", TensorProto.FLOAT16, weight.scales.shape, weight.scales.tobytes(), raw=True),
    ]
    if weight.zeros is not None:
        zeros = weight.zeros
        tensors.append(helper.make_tensor("zeros", TensorProto.UINT8, zeros.shape, zeros.tobytes(), raw=True))
    rows = len(weight.codes)
    wide = helper.make_node("Cast", ["scales"], ["scales.wide"], to=TensorProto.FLOAT)
    names = ["scales.wide" if tensor.name == "scales" else tensor.name for tensor in tensors]
    node = helper.make_node(
        "MatMulNBits",
        ["states", *names],
        ["products"],
        domain="com.microsoft",
        K=weight.width,
        N=rows,
        bits=weight.bits,
        block_size=32,
        accuracy_level=accuracy_level,
    )
    free = [f"D{i}" for i in range(rank - 1)]
    inputs = [helper.make_tensor_value_info("states", TensorProto.FLOAT, [*free, weight.width])]
    outputs = [helper.make_tensor_value_info("products", TensorProto.FLOAT, [*free, rows])]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([wide, node], "product", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


class Products:
    """A session with one product."""

    def __init__(self, weight: Weight, *, ours: bool = True, threads: int = 1, rank: int = 2) -> None:
        model = product_graph(weight, rank=rank)
        if ours:
            assert use_native_products(model) == 1
        self._session = open_products(model, threads=threads)

    def __call__(self, states: _Float32) -> _Float32:
        """Products of states."""
        products: _Float32 = self._session.run(None, {"states": states})[0]
        return products


def open_products(model: onnx.ModelProto, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session that knows the native library's operators, where there are any."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if native.is_available():
        options.register_custom_ops_library(str(native.LIBRARY))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
