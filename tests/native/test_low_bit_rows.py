"""Scans in low precision find the best rows, and what they prove of the others is true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashhead_edge.errors import OptionError
from flashhead_edge.native.low_bit_rows import LowBitRows
from flashhead_edge.quantize import QuantizedRows, quantize_rows

_LOOSE = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_rows(count: int, width: int, *, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, width)) * random.uniform(0.1, 2, (count, 1))).astype(np.float32)


@_LOOSE
@given(
    count=st.integers(1, 700),
    width=st.integers(1, 200),
    batch=st.integers(1, 7),
    wanted=st.integers(1, 80),
    threads=st.integers(1, 4),
    bits=st.sampled_from([4, 8]),
    half=st.booleans(),
    has_bias=st.booleans(),
)
def test_no_other_row_reaches_above_the_rest(
    kernels: str, count: int, width: int, batch: int, wanted: int, threads: int, bits: int, half: bool, has_bias: bool
) -> None:
    rows = random_rows(count, width, seed=count).astype(np.float16 if half else np.float32)
    random = np.random.default_rng(width)
    bias = random.standard_normal(count).astype(np.float32) if has_bias else None
    states = (random.standard_normal((batch, width)) * 5).astype(np.float32)
    quantized = quantize_rows(rows.astype(np.float32), bits)
    scan = LowBitRows.measured(rows, quantized, bias=bias, threads=threads)
    found = scan.best(states, wanted)
    exact = states.astype(np.float64) @ rows.astype(np.float64).T + (0 if bias is None else bias)
    low = scan.products(states) + (0 if bias is None else bias)
    for b in range(batch):
        real = found.rows[b][found.rows[b] >= 0]
        assert len(real) == min(wanted, count)
        order = np.lexsort((np.arange(count), -low[b]))
        np.testing.assert_array_equal(real, order[: len(real)])
        np.testing.assert_array_equal(found.products[b][: len(real)], low[b][real])
        others = np.setdiff1d(np.arange(count), real)
        assert found.rest[b] >= exact[b][others].max(initial=-np.inf)
        if len(others):  # and not by so much that nothing is ever proven
            slack = float(scan._errors.max()) * np.linalg.norm(states[b]) * 2.01 + 1e-3 * (1 + np.abs(exact[b]).max())
            assert found.rest[b] <= low[b][others].max() + slack
        else:
            assert np.isneginf(found.rest[b])


@_LOOSE
@given(count=st.integers(1, 400), width=st.integers(1, 300), batch=st.integers(1, 70), bits=st.sampled_from([4, 8]))
def test_products_are_those_of_what_the_codes_stand_for(
    kernels: str, count: int, width: int, batch: int, bits: int
) -> None:
    quantized = quantize_rows(random_rows(count, width, seed=width), bits)
    states = np.random.default_rng(count).standard_normal((batch, width)).astype(np.float32)
    scan = LowBitRows(quantized, np.zeros(count, np.float32), 0.0, threads=3)
    values = quantized.dequantize().astype(np.float64)
    lengths = np.linalg.norm(states, axis=1)[:, None] * np.linalg.norm(values, axis=1)
    bound = lengths * (np.sqrt(width) / 65534 + 2e-6) + 1e-7
    np.testing.assert_array_less(np.abs(scan.products(states) - states.astype(np.float64) @ values.T), bound)


def test_nothing_is_proven_of_states_that_are_not_finite(kernels: str) -> None:
    rows = random_rows(300, 32)
    scan = LowBitRows.measured(rows, quantize_rows(rows, 8), threads=2)
    states = np.ones((3, 32), np.float32)
    states[1, 4], states[2, 0] = np.nan, np.inf
    rest = scan.best(states, 5).rest
    assert np.isfinite(rest[0])
    assert np.isnan(rest[1:]).all()


def test_what_does_not_fit_is_refused() -> None:
    rows = random_rows(10, 32)
    quantized = quantize_rows(rows, 8)
    scan = LowBitRows.measured(rows, quantized)
    for states in (np.zeros((1, 31), np.float32), np.zeros(32, np.float32), np.zeros((0, 32), np.float32)):
        with pytest.raises(OptionError, match="states"):
            scan.products(states)
    with pytest.raises(OptionError, match="find"):
        scan.best(np.zeros((1, 32), np.float32), 0)
    with pytest.raises(OptionError, match="errors"):
        LowBitRows(quantized, np.zeros(9, np.float32), 1.0)
    with pytest.raises(OptionError, match="scales"):
        LowBitRows(
            QuantizedRows(quantized.codes, quantized.scales.astype(np.float64), 8, 32), np.zeros(10, np.float32), 1.0
        )
