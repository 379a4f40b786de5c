"""Regressions on states, against least squares written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flashhead_edge.index import regression as module
from flashhead_edge.index.regression import StateRegression
from tests.tiny_heads import random_states

COUNT, WIDTH, TARGETS = 150, 12, 7
STATES = torch.from_numpy(random_states(COUNT, WIDTH)) * 3 + 1
RANDOM = np.random.default_rng(0)
VALUES = torch.from_numpy(RANDOM.normal(size=(COUNT, TARGETS)).astype(np.float32))
PRIOR = torch.from_numpy(RANDOM.normal(size=(TARGETS, WIDTH + 1)).astype(np.float32))


def inputs() -> np.ndarray:
    unit = np.linalg.norm(STATES.numpy(), axis=1).mean()
    return np.concatenate([STATES.numpy(), np.full((COUNT, 1), unit)], axis=1).astype(np.float64)


@pytest.mark.parametrize("prior_states", [1.0, 30.0])
def test_fit_is_least_squares_with_the_prior_as_more_rows(prior_states: float) -> None:
    x = inputs()
    pull = np.sqrt(prior_states * np.square(x).mean()) * np.eye(WIDTH + 1)
    found = StateRegression(STATES, prior_states).fit(VALUES, PRIOR)
    for k in range(TARGETS):
        target = np.concatenate([VALUES[:, k], pull @ PRIOR[k].numpy()])
        expected = np.linalg.lstsq(np.concatenate([x, pull]), target, rcond=None)[0]
        np.testing.assert_allclose(found[k], expected, rtol=1e-3, atol=1e-3)


def test_a_strong_prior_stays() -> None:
    torch.testing.assert_close(StateRegression(STATES, 1e12).fit(VALUES, PRIOR), PRIOR, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prior_weight", [0.1, 1.0])
@pytest.mark.parametrize("states_at_once", [7, 1024])
def test_refit_ends_at_weighted_least_squares(
    prior_weight: float, states_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ITERATIONS", 40)
    monkeypatch.setattr(module, "_STATES_AT_ONCE", states_at_once)
    weights = torch.from_numpy(RANDOM.uniform(size=(COUNT, TARGETS)).astype(np.float32))
    found = StateRegression(STATES, 1.0).refit(VALUES, weights, PRIOR, prior_weight)
    x = inputs()
    for k in range(TARGETS):
        near, stay = np.sqrt(weights[:, k : k + 1].double().numpy()), np.sqrt(prior_weight)
        prior = np.concatenate([x, np.sqrt(np.square(x).mean()) * np.eye(WIDTH + 1)]) * stay
        target = np.concatenate([near[:, 0] * VALUES[:, k].numpy(), prior @ PRIOR[k].numpy()])
        expected = np.linalg.lstsq(np.concatenate([near * x, prior]), target, rcond=None)[0]
        np.testing.assert_allclose(found[k], expected, rtol=1e-2, atol=1e-2)


def test_refit_gains_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    regression = StateRegression(STATES, 1.0)
    weights = (torch.arange(COUNT) % 5 == 0).float().unsqueeze(1).expand(COUNT, TARGETS)
    start = regression.fit(VALUES, torch.zeros_like(PRIOR))
    losses = []
    for iterations in range(5):
        monkeypatch.setattr(module, "_ITERATIONS", iterations)
        found = regression.refit(VALUES, weights, start, 0.1)
        misfit = weights * (VALUES - regression.predict(found)).square()
        losses.append(float((misfit + 0.1 * regression.predict(found - start).square()).sum()))
    assert losses == sorted(losses, reverse=True)
    assert losses[3] < 0.95 * losses[0]


def test_targets_that_nothing_weighs_keep_the_prior() -> None:
    found = StateRegression(STATES, 1.0).refit(VALUES, torch.zeros(COUNT, TARGETS), PRIOR, 0.1)
    torch.testing.assert_close(found, PRIOR)


def test_fewer_states_than_coefficients() -> None:
    regression = StateRegression(STATES[:4], 5.0)
    found = regression.refit(VALUES[:4], torch.ones(4, TARGETS), regression.fit(VALUES[:4], PRIOR), 0.1)
    assert found.isfinite().all()
