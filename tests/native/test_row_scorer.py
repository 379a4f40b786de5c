"""Products of single rows: near the exact ones by rounding alone, on all kernels."""

from __future__ import annotations

import numpy as np
import pytest

from flashhead_edge.errors import OptionError
from flashhead_edge.native.row_scorer import RowScorer
from flashhead_edge.row_table import RowTable
from tests.native.test_low_bit_rows import random_rows


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_single_rows_have_exact_products(kernels: str, dtype: type[np.generic]) -> None:
    random = np.random.default_rng(3)
    for width in (1, 7, 8, 15, 16, 33, 64, 100, 640):
        rows = random_rows(50, width, seed=width).astype(dtype)
        rows.ravel()[::7] = 6e-6  # a subnormal of half precision
        states = random.standard_normal((3, width)).astype(np.float32)
        numbers = random.integers(-1, 50, (3, 20))
        found = RowScorer(RowTable(rows[:, None]))(numbers, states)
        exact = states.astype(np.float64) @ rows.astype(np.float64).T
        size = np.abs(states).astype(np.float64) @ np.abs(rows).astype(np.float64).T
        for b in range(3):
            there = numbers[b] >= 0
            assert np.isneginf(found[b][~there]).all()
            error = np.abs(found[b][there] - exact[b][numbers[b][there]])
            assert (error <= size[b][numbers[b][there]] * (width + 1) * 2.0**-24).all()


def test_all_half_precision_numbers_are_read_right(kernels: str) -> None:
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    values = values[np.isfinite(values)]
    rows = np.repeat(values[:, None], 16, axis=1).copy()  # whole vectors, and with width 1 the scalar tail
    state = np.zeros((1, 16), np.float32)
    state[0, 5] = 1
    numbers = np.arange(len(values))[None]
    np.testing.assert_array_equal(RowScorer(RowTable(rows[:, None]))(numbers, state)[0], values.astype(np.float32))
    one = RowScorer(RowTable(rows[:, None, :1].copy()))(numbers, np.ones((1, 1), np.float32))
    np.testing.assert_array_equal(one[0], values.astype(np.float32))


def test_what_does_not_fit_is_refused() -> None:
    rows = random_rows(10, 32)
    state = np.zeros((1, 32), np.float32)
    with pytest.raises(OptionError, match="out of range"):
        RowScorer(RowTable(rows[:, None]))(np.array([[3, 10]]), state)
    with pytest.raises(OptionError, match="contiguous"):
        RowScorer(RowTable(rows[:, None, ::2]))
    for numbers, states in (
        (np.array([[1]]), state[:, :31].copy()),
        (np.array([[1], [2]]), state),
        (np.array([[1, 2]]), state[:, None, 0]),
    ):
        with pytest.raises(OptionError, match="states"):
            RowScorer(RowTable(rows[:, None]))(numbers, states)
