"""A table of rows gives exactly what is stored, whatever it is stored in."""

from __future__ import annotations

import numpy as np
import pytest

from flashhead_edge.errors import OptionError
from flashhead_edge.quantize import split_nibbles, stored_int8
from flashhead_edge.row_table import RowTable
from tests.tiny_heads import int8_head


def int8_table() -> tuple[np.ndarray, RowTable]:
    rows = int8_head(60, 64).rows
    stored = stored_int8(rows)
    assert stored is not None
    high, low = split_nibbles(stored[0].reshape(15, 4, 64))
    return rows.reshape(15, 4, 64), RowTable(high, low, stored[1].reshape(15, 4, 2))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_floats_come_back_as_they_are(dtype: str) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3, 33)).astype(dtype)
    table = RowTable(rows)
    assert table.shape == (5, 3, 33)
    assert table.floats() is rows
    for found, expected in (
        (table.clusters([3, 0]), rows[[3, 0]]),
        (table.slots(np.array([[14], [2]])), rows.reshape(15, 33)[[[14], [2]]]),
    ):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_int8_rows_come_back_exactly() -> None:
    rows, table = int8_table()
    assert table.shape == (15, 4, 64)
    np.testing.assert_array_equal(table.floats(), rows)
    np.testing.assert_array_equal(table.clusters(slice(2, 5)), rows[2:5])
    np.testing.assert_array_equal(table.clusters(np.array([[7, 1]])), rows[[[7, 1]]])
    np.testing.assert_array_equal(table.slots(np.array([59, 0])), rows.reshape(60, 64)[[59, 0]])
    assert table.slots(np.array([], np.int64)).shape == (0, 64)
    np.testing.assert_array_equal(table.first(6).floats(), rows[:6])
    np.testing.assert_array_equal(table.joined(5).floats(), rows.reshape(3, 20, 64))


def test_what_does_not_go_together_is_refused() -> None:
    _, table = int8_table()
    floats = np.zeros((15, 4, 64), np.float32)
    for arrays in (
        (table.rows,),
        (table.rows, table.low),
        (table.rows, None, table.scales),
        (table.rows, table.low, table.scales[:, :, :1]),
        (table.rows, table.low, table.scales.astype(np.float32)),
        (table.rows, table.low[:, :3], table.scales),
        (table.rows[..., :15], table.low[..., :15], table.scales),
        (table.rows.view(np.int8), table.low, table.scales),
        (floats, None, table.scales),
        (floats.astype(np.float64),),
        (floats[0],),
    ):
        with pytest.raises(OptionError, match="no rows of a head"):
            RowTable(*arrays)
