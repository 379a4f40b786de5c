"""Axes: what is shown lies on them, ticks are round and few."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashhead_edge.profiling.report.scales import Scale, scale_of, short

POSITIVE = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=8)


@given(values=POSITIVE, is_log=st.booleans())
def test_values_lie_on_the_axis(values: list[float], is_log: bool) -> None:
    scale = scale_of(values, 10, 210, is_log=is_log)
    assert all(10 <= scale(value) <= 210 for value in values)
    assert sorted(values) == sorted(values, key=scale)


@given(values=POSITIVE, is_log=st.booleans(), most=st.integers(3, 8))
def test_ticks_lie_on_it_too(values: list[float], is_log: bool, most: int) -> None:
    scale = scale_of(values, 0, 100, is_log=is_log)
    ticks = scale.ticks(most)
    assert len(ticks) <= most + 1
    assert all(-1e-6 <= scale(tick) <= 100 + 1e-6 for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_ticks_are_round() -> None:
    assert Scale(0, 42, 0, 1).ticks(6) == [0, 10, 20, 30, 40]
    assert Scale(0.88, 1.0, 0, 1).ticks(6) == pytest.approx([0.9, 0.925, 0.95, 0.975, 1.0])
    assert Scale(0.4, 20, 0, 1, is_log=True).ticks(6) == [0.5, 1, 2, 5, 10, 20]


def test_zero_is_kept() -> None:
    assert scale_of([3, 5], 0, 100, zero=True)(0) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(262144, "256k"), (1024, "1k"), (1 << 20, "1M"), (3, "3"), (0.25, "0.25"), (365, "365"), (200_000, "200 k")],
)
def test_numbers_at_the_axis(value: float, text: str) -> None:
    assert short(value) == text
