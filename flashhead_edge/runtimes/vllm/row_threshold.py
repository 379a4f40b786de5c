"""Up to how many rows of a step the two-stage head is not slower than the dense one; docs/vllm.md, Speed."""

from __future__ import annotations

from typing import Any

#: Rows by what runs the head.
MAX_ROWS = {"native": 32, "torch": 2, "triton": 8}
#: Seconds in which a GPU reads a dense head's weight at its memory's peak, below which the dense head is used: about
#: what two stages take whatever they read. The heads that were measured lie well on either side (docs/kernels.md).
_LEAST_READ = 40e-6


def is_small(weight_bytes: int, bandwidth: float | None) -> bool:
    """Whether a GPU reads a dense head's weight so fast that two stages save nothing.

    Args:
        weight_bytes: Size of the weight.
        bandwidth: Peak of the memory, bytes/s, or None where it is not known.
    """
    return bandwidth is not None and weight_bytes / bandwidth < _LEAST_READ


def peak_bandwidth(device: Any) -> float | None:
    """Bytes/s by a GPU's memory clock, kHz, and bus, bits: two transfers a clock; None where PyTorch knows neither."""
    clock, width = getattr(device, "memory_clock_rate", None), getattr(device, "memory_bus_width", None)
    return 2e3 * clock * width / 8 if clock and width else None
