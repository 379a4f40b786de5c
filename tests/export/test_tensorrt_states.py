from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashhead_edge.export.tensorrt_states import best_state_bound, fit_int8_states


def error(states: np.ndarray, bound: float) -> float:
    scale = bound / 127
    return float(np.square(np.clip(np.rint(states / scale), -128, 127) * scale - states).mean())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), outlier=st.floats(1, 100), scale=st.floats(1e-3, 1e3))
def test_no_worse_than_the_greatest_magnitude_and_follows_the_scale(seed: int, outlier: float, scale: float) -> None:
    states = np.random.default_rng(seed).normal(size=(60, 32)).astype(np.float32)
    states[:2, 0] *= np.float32(outlier)
    bound, greatest = best_state_bound(states), float(np.abs(states).max())
    assert 0 < bound <= greatest * 1.0001
    assert error(states, bound) <= error(states, greatest) * 1.0001
    scaled = best_state_bound(states * np.float32(scale))
    assert error(states, scaled / scale) == pytest.approx(error(states, bound), rel=0.05)


def test_one_outlier_does_not_take_the_codes_of_all_others() -> None:
    states = np.random.default_rng(0).normal(size=(500, 512)).astype(np.float32)
    states[0, 0] = 100
    assert best_state_bound(states) < 60


def test_states_of_zeros_and_many_states() -> None:
    assert best_state_bound(np.zeros((3, 4), np.float32)) == 1.0
    states = np.random.default_rng(0).normal(size=(5000, 8)).astype(np.float32)
    assert best_state_bound(states) == pytest.approx(np.abs(states).max(), rel=0.5)


def test_products_of_states_with_outlying_dimensions_keep_their_numbers() -> None:
    """As a language model's: a few dimensions a hundred times larger, where rows are smaller."""
    random = np.random.default_rng(0)
    size = np.where(np.arange(256) % 64 == 0, 100, 1).astype(np.float32)
    states = random.normal(size=(200, 256)).astype(np.float32) * size
    rows = random.normal(size=(300, 256)).astype(np.float32) / np.sqrt(size)
    how = fit_int8_states(states, rows)
    scale = how.bound / 127
    balanced = np.clip(np.rint(states / how.divisors / scale), -128, 127) * scale
    expected = states @ rows.T
    plain_scale = best_state_bound(states) / 127
    plain = np.clip(np.rint(states / plain_scale), -128, 127) * plain_scale
    error_of = [
        np.square(product - expected).mean() for product in (balanced @ (rows * how.divisors).T, plain @ rows.T)
    ]
    assert error_of[0] < error_of[1] / 4


def test_dimensions_that_are_never_used_have_a_divisor_too() -> None:
    states, rows = np.ones((4, 8), np.float32), np.ones((5, 8), np.float32)
    states[:, 0] = rows[:, 1] = 0
    how = fit_int8_states(states, rows)
    assert (how.divisors > 0).all()
    assert np.isfinite(how.divisors).all()
    assert how.bound > 0
