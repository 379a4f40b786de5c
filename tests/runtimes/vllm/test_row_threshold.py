"""Up to how many rows the two-stage head is taken."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flashhead_edge.runtimes.vllm.row_threshold import MAX_ROWS, is_small, peak_bandwidth


def test_a_gpu_takes_two_stages_where_reading_the_head_takes_long():
    """The sizes of docs/kernels.md, on a GPU of 4.9 TB/s; SmolLM2's head was slower in two stages there."""
    sizes = {"smollm2": (49_152, 576), "gemma3": (262_144, 640), "llama": (128_256, 2048)}
    small = [name for name, (vocab, hidden) in sizes.items() if is_small(2 * vocab * hidden, 4.9e12)]
    assert small == ["smollm2"]
    assert not is_small(2 * 49_152 * 576, 0.3e12)
    assert not is_small(1, None)


def test_a_gpus_bandwidth():
    assert peak_bandwidth(SimpleNamespace(memory_clock_rate=3_201_000, memory_bus_width=6144)) == pytest.approx(
        4.917e12, 1e-3
    )
    assert peak_bandwidth(SimpleNamespace(name="of an older PyTorch")) is None


def test_every_path_has_a_threshold():
    assert set(MAX_ROWS) == {"native", "torch", "triton"}
    assert min(MAX_ROWS.values()) >= 1
