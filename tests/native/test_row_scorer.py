"""Products of single rows: near the exact ones by rounding alone, on all kernels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from flashhead_edge.errors import BundleError, OptionError
from flashhead_edge.native.row_scorer import RowScorer
from flashhead_edge.quantize import split_nibbles, stored_int8
from flashhead_edge.row_table import RowTable
from tests.native.test_low_bit_rows import random_rows
from tests.tiny_heads import int8_head


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


def mapped(path: Path, rows: np.ndarray) -> np.ndarray:
    """The same rows, mapped from a file in which something else comes first."""
    path.write_bytes(b"other" * 1000 + rows.tobytes())
    return np.memmap(path, rows.dtype, "r", 5000, rows.shape)


def test_a_mapped_table_is_read_from_its_file(tmp_path: Path, kernels: str) -> None:
    head = int8_head(3000, 640)
    stored = stored_int8(head.rows)
    assert stored is not None
    high, low = split_nibbles(stored[0][:, None])
    parts = (high, low, stored[1][:, None])
    table = RowTable(*(mapped(tmp_path / str(number), part) for number, part in enumerate(parts)))
    states, numbers = np.random.default_rng(0).normal(size=(1, 640)).astype(np.float32), np.arange(0, 3000, 12)[None]
    expected = RowScorer(RowTable(*parts))(numbers, states)
    scorer = RowScorer(table)
    for _ in range(2):  # read, and kept or not
        np.testing.assert_array_equal(scorer(numbers, states), expected)
    assert resident(tmp_path / "1") == 0
    whole = scorer(np.arange(3000)[None], states)  # too many to be read one by one
    np.testing.assert_array_equal(whole[0, ::12], expected[0])
    assert resident(tmp_path / "1") >= low.nbytes


def resident(file: Path) -> int:
    """Bytes of a mapped file that are resident here."""
    inside, found = False, 0
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if line.split(" ", 1)[0].count("-") == 1 and not line.endswith("kB"):
            inside = line.endswith(str(file))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def test_a_part_of_a_mapping_and_a_file_that_was_replaced(tmp_path: Path) -> None:
    rows = random_rows(500, 64).astype(np.float16)[:, None]
    table = mapped(tmp_path / "rows", rows)
    (tmp_path / "new").write_bytes(bytes(5000 + rows.nbytes))
    (tmp_path / "new").replace(tmp_path / "rows")  # the mapping is still of the old one
    states, numbers = np.ones((1, 64), np.float32), np.array([[3, 399, 0]])
    expected = RowScorer(RowTable(rows[100:]))(numbers, states)
    np.testing.assert_array_equal(RowScorer(RowTable(table[100:]))(numbers, states), expected)


def test_a_file_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    rows = random_rows(500, 64)[:, None]
    scorer = RowScorer(RowTable(mapped(tmp_path / "rows", rows)))
    os.truncate(tmp_path / "rows", 6000)
    states = np.ones((1, 64), np.float32)
    np.testing.assert_array_equal(scorer(np.array([[0]]), states), RowScorer(RowTable(rows))(np.array([[0]]), states))
    with pytest.raises(BundleError, match="cannot be read any more"):
        scorer(np.array([[400]]), states)


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
