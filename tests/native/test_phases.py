"""The clock in the native head: it counts when asked, and sums to what the operator takes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from flashhead_edge.native import phases
from tests.native.tiny_native import native_and_portable
from tests.tiny_heads import random_head, random_index, random_states


@pytest.mark.parametrize("low_bits", [None, 8])
def test_phases_add_up(tmp_path: Path, low_bits: int | None) -> None:
    head = random_head(20_000, 64)
    native, _ = native_and_portable(
        tmp_path / "head", head, random_index(head, 8), 400, centroids="int8", low_bits=low_bits, threads=1
    )
    states = random_states(4, 64)
    expected = native.run(states)
    with phases.timing():
        start = time.perf_counter()
        for _ in range(5):
            found = native.run(states)
        seconds = time.perf_counter() - start
        times = phases.times()
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    assert times.calls == 5
    assert min(times[1:]) > 0
    assert sum(times[1:]) <= seconds
    native.run(states)
    assert phases.times() == times  # nobody asks any more
    with phases.timing():
        assert phases.times() == (0, 0.0, 0.0, 0.0)
