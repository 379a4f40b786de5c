"""Whether ONNX Runtime's low-bit product computes a row alike alone and among others; that differs by processor."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

WIDTH, ROWS, BLOCK = 256, 96, 32


@cache
def rows_are_alike(bits: int) -> bool:
    """Of ``MatMulNBits`` with zero points, at the accuracy level of our bodies."""
    random = np.random.default_rng(0)
    blocks = WIDTH // BLOCK
    codes = random.integers(0, 256, (ROWS, blocks, BLOCK * bits // 8), dtype=np.uint8)
    scales = random.uniform(0.01, 0.02, ROWS * blocks).astype(np.float32)
    zeros = random.integers(0, 256, ROWS * blocks * bits // 8, dtype=np.uint8)
    tensors = [
        helper.make_tensor("codes", TensorProto.UINT8, codes.shape, codes.tobytes(), raw=True),
        helper.make_tensor("scales", TensorProto.FLOAT, scales.shape, scales.tobytes(), raw=True),
        helper.make_tensor("zeros", TensorProto.UINT8, zeros.shape, zeros.tobytes(), raw=True),
    ]
    sizes = {"K": WIDTH, "N": ROWS, "bits": bits, "block_size": BLOCK, "accuracy_level": 4}
    inputs = ["states", "codes", "scales", "zeros"]
    node = helper.make_node("MatMulNBits", inputs, ["products"], domain="com.microsoft", **sizes)
    values = [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["S", WIDTH])]
    results = [helper.make_tensor_value_info("products", TensorProto.FLOAT, ["S", ROWS])]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "product", values, results, tensors)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    states = random.standard_normal((8, WIDTH)).astype(np.float32)

    def products(step: int) -> np.ndarray:
        parts = [session.run(None, {"states": states[i : i + step]})[0] for i in range(0, len(states), step)]
        return np.concatenate(parts)

    alone = products(1)
    return all(np.array_equal(products(step), alone) for step in (2, 4, 8))
