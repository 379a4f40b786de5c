"""What all kernels do with products: scale and soft-cap."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def activate(products, activation_ptr):
    """Logits of products; of :attr:`~flashhead_edge.kernels.head_tensors.HeadTensors.activation`."""
    logits = products * tl.load(activation_ptr)
    softcap = tl.load(activation_ptr + 1)
    divisor = tl.where(softcap > 0, softcap, 1.0)
    decay = tl.exp(-2.0 * tl.abs(logits / divisor))  # tanh, from the exponential that cannot overflow
    magnitude = softcap * ((1.0 - decay) / (1.0 + decay))
    return tl.where(softcap > 0, tl.where(logits < 0, -magnitude, magnitude), logits)
