"""The metric against the second moment it stands for."""

from __future__ import annotations

import pytest
import torch

from flashhead_edge.index.metric import activation_metric


def states_of(count: int, width: int, *, rank: int | None = None, mean: float = 0.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    inner = width if rank is None else rank
    factors = torch.randn((count, inner), generator=generator) * torch.linspace(3, 0.3, inner)
    mixing = torch.linalg.qr(torch.randn((width, width), generator=generator)).Q[:inner]
    return factors @ mixing + mean


@pytest.mark.parametrize("count", [500, 40, 10], ids=["more states", "as many", "fewer states"])
def test_it_is_the_second_moment(count: int) -> None:
    states = states_of(count, 40, mean=1.0)
    metric = activation_metric(states, 40)
    moment = states.T @ states / count
    rebuilt = (metric.directions * metric.eigenvalues) @ metric.directions.T
    torch.testing.assert_close(rebuilt, moment, rtol=1e-3, atol=1e-3 * float(moment.abs().max()))


@pytest.mark.parametrize("count", [300, 20])
@pytest.mark.parametrize("rank", [1, 7, 384])
def test_directions_are_orthonormal_and_leading_first(count: int, rank: int) -> None:
    metric = activation_metric(states_of(count, 32), rank)
    kept = metric.directions.shape[1]
    assert metric.directions.shape == (32, min(rank, count, 32))
    assert metric.eigenvalues.shape == (kept,)
    torch.testing.assert_close(metric.directions.T @ metric.directions, torch.eye(kept), rtol=0, atol=2e-4)
    assert (metric.eigenvalues.diff() <= 0).all()
    assert (metric.eigenvalues > 0).all()


def test_few_and_many_states_give_the_same_directions() -> None:
    """Whether the Gram matrix or the moment is decomposed."""
    states = states_of(31, 32)
    few = activation_metric(states, 8)
    many = activation_metric(states.repeat(3, 1), 8)
    torch.testing.assert_close(few.eigenvalues, many.eigenvalues, rtol=1e-4, atol=1e-5)
    overlap = (few.directions * many.directions).sum(dim=0).abs()
    torch.testing.assert_close(overlap, torch.ones(8), rtol=0, atol=1e-3)


@pytest.mark.parametrize("count", [200, 20])
def test_directions_that_no_state_has_are_left_out(count: int) -> None:
    assert activation_metric(states_of(count, 32, rank=5), 32).directions.shape == (32, 5)


def test_the_mean_is_part_of_it() -> None:
    states = states_of(400, 16) * 0.1 + torch.eye(16)[3] * 10
    metric = activation_metric(states, 1)
    assert float(metric.directions[3, 0].abs()) > 0.999
    assert float(metric.eigenvalues[0]) == pytest.approx(100, rel=0.05)


def test_tempering() -> None:
    metric = activation_metric(states_of(500, 16), 16)
    torch.testing.assert_close(metric.tempered(0.0), metric.directions)
    norms = metric.tempered(1.0).norm(dim=0)
    torch.testing.assert_close(norms, (metric.eigenvalues / metric.eigenvalues[0]).sqrt(), rtol=1e-4, atol=1e-5)
    for alpha in (0.0, 0.5, 0.75, 1.0):
        assert float(metric.tempered(alpha).norm(dim=0).max()) == pytest.approx(1, abs=1e-4)


def test_distances_are_mean_square_errors_of_products() -> None:
    """The claim that clustering in this metric rests on."""
    states = states_of(600, 24, mean=0.5)
    metric = activation_metric(states, 24)
    first, second = states_of(2, 24, seed=5)
    error = (states @ (first - second)).square().mean()
    distance = ((first - second) @ metric.tempered(1.0)).square().sum() * metric.eigenvalues[0]
    torch.testing.assert_close(distance, error, rtol=1e-3, atol=0)
