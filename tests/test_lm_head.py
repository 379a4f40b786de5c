"""The head's definition and its check for numbers that are not finite."""

from __future__ import annotations

import numpy as np
import pytest

from flashhead_edge.errors import WeightError
from flashhead_edge.lm_head import LmHead


def head(**options: object) -> LmHead:
    return LmHead(np.zeros((10, 4), np.float32), **options)


def test_sizes() -> None:
    assert (head().vocab_size, head().hidden_size, head().parameter_bytes_fp16) == (10, 4, 80)


@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_scale_then_softcap(shape: tuple[int, ...]) -> None:
    products = np.random.default_rng(0).normal(size=shape).astype(np.float32) * np.float32(50)
    found = head(logit_scale=0.5, logit_softcap=30.0).activate(products)
    np.testing.assert_allclose(found, 30 * np.tanh(products * 0.5 / 30), rtol=1e-6)
    assert found.dtype == np.float32
    assert np.abs(found).max() <= 30


def test_without_scale_and_softcap_products_are_logits() -> None:
    products = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(head().activate(products), products)


def test_finite_heads_pass() -> None:
    head().check_finite()
    head(bias=np.zeros(10, np.float32)).check_finite()
    LmHead(np.full((3, 4), 3e38, np.float32)).check_finite()  # their sum overflows, they do not


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_rows_that_are_not_finite_are_named(number: float, chunk: int) -> None:
    rows = np.zeros((10, 4), np.float32)
    rows[[3, 9], 2] = number
    with pytest.raises(WeightError, match=r"2 of 10 rows: 3, 9\b"):
        LmHead(rows).check_finite(chunk=chunk)


def test_opposite_infinities_in_one_row_are_found() -> None:
    rows = np.zeros((4, 4), np.float32)
    rows[1, :2] = np.inf, -np.inf
    with pytest.raises(WeightError, match="1 of 4 rows: 1"):
        LmHead(rows).check_finite()


def test_many_are_counted() -> None:
    with pytest.raises(WeightError, match="10 of 10 rows: 0, 1 and 8 more"):
        LmHead(np.full((10, 4), np.nan, np.float32)).check_finite(show=2)


def test_the_bias_counts_and_a_row_counts_once() -> None:
    rows = np.zeros((10, 4), np.float32)
    bias = np.zeros(10, np.float32)
    rows[2, 0] = bias[2] = bias[5] = np.nan
    with pytest.raises(WeightError, match="2 of 10 rows: 2, 5"):
        LmHead(rows, bias).check_finite()
