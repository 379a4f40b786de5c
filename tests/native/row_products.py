"""Whether ONNX Runtime's low-bit product computes a row alike alone and among others; that differs by processor."""

from __future__ import annotations

from functools import cache

import numpy as np

from tests.native.tiny_products import Products, random_weight
from tests.tiny_heads import random_states

WIDTH, ROWS = 256, 96


@cache
def rows_are_alike(bits: int) -> bool:
    """Of ``MatMulNBits`` with zero points, at the accuracy level of our bodies."""
    products, states = Products(random_weight(ROWS, WIDTH, bits), ours=False), random_states(8, WIDTH)

    def in_steps(step: int) -> np.ndarray:
        return np.concatenate([products(states[i : i + step]) for i in range(0, len(states), step)])

    alone = in_steps(1)
    return all(np.array_equal(in_steps(step), alone) for step in (2, 4, 8))
