"""Refinement brings points closer to their means and keeps everything else."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flashhead_edge.index.bisection import balanced_bisection
from flashhead_edge.index.refinement import refine_clusters


def clustered(
    size: int, clusters: int, width: int, *, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Original points, reordered points and members."""
    generator = torch.Generator().manual_seed(seed)
    original = torch.randn((size, width), generator=generator)
    points = torch.zeros((clusters * -(-size // clusters), width))
    points[:size] = original
    return original, points, balanced_bisection(points, size, clusters, seed=seed)


def squares(points: torch.Tensor, members: torch.Tensor) -> float:
    """Sum of squared distances to the clusters' means."""
    valid = (members >= 0).unsqueeze(2)
    own = torch.where(valid, points.double()[members.clamp(min=0)], 0)
    mean = own.sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp(min=1)
    return float(torch.where(valid, own - mean, 0).square().sum())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    size=st.integers(6, 250),
    share=st.floats(0.02, 1),
    width=st.integers(1, 10),
    passes=st.integers(0, 6),
    seed=st.integers(0, 5),
)
def test_no_pass_makes_clusters_looser_or_other_in_size(
    size: int, share: float, width: int, passes: int, seed: int
) -> None:
    clusters = max(1, int(size * share))
    original, points, members = clustered(size, clusters, width, seed=seed)
    refined = refine_clusters(points, members.clone(), passes, seed=seed)
    assert refined.shape == members.shape
    assert torch.equal((refined >= 0).sum(dim=1), (members >= 0).sum(dim=1))
    assert sorted(refined[refined >= 0].tolist()) == list(range(size))
    assert (refined[:, 1:] >= 0).logical_or(refined[:, 1:] == -1).all()
    assert ((refined >= 0).int().diff(dim=1) <= 0).all()  # holes last
    before, after = squares(original, members), squares(original, refined)
    assert after <= before * (1 + 1e-6) + 1e-9
    filled = refined.view(-1) >= 0
    assert torch.equal(points[filled], original[refined.view(-1)[filled]])
    assert not points[~filled].any()


@pytest.mark.parametrize("clusters", [3, 4, 5, 6, 7])
@pytest.mark.parametrize("seed", range(5))
def test_a_pair_may_lie_apart(clusters: int, seed: int) -> None:
    """A pass over few clusters, or the last batch of a pass, can be a single pair with others between."""
    original, points, members = clustered(8 * clusters - 2, clusters, 3, seed=seed)
    refined = refine_clusters(points, members, 6, seed=seed)
    assert sorted(refined[refined >= 0].tolist()) == list(range(len(original)))
    assert squares(original, refined) <= squares(original, members) * (1 + 1e-6)
    filled = refined.view(-1) >= 0
    assert torch.equal(points[filled], original[refined.view(-1)[filled]])


def test_every_pass_helps_at_first() -> None:
    original, points, members = clustered(2048, 128, 12)
    history = [squares(original, members)]
    for number in range(4):
        members = refine_clusters(points, members, 1, seed=number)
        history.append(squares(original, members))
    assert all(later < earlier for earlier, later in itertools.pairwise(history))
    assert history[-1] < 0.99 * history[0]


def test_the_same_seed_gives_the_same_clusters() -> None:
    first, second, other = (
        refine_clusters(*clustered(512, 32, 8)[1:], 3, seed=seed)  # passes
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_no_passes_change_nothing() -> None:
    _, points, members = clustered(100, 10, 4)
    assert torch.equal(refine_clusters(points, members, 0), members)


@pytest.mark.parametrize("clusters", [1, 2])
def test_two_clusters_are_as_good_as_they_get(clusters: int) -> None:
    _, points, members = clustered(9, clusters, 4)
    assert torch.equal(refine_clusters(points, members, 5), members)


def test_the_members_given_stay_as_they_were() -> None:
    _, points, members = clustered(200, 20, 4)
    kept = members.clone()
    refine_clusters(points, members, 3)
    assert torch.equal(members, kept)


def test_progress_comes_by_pass() -> None:
    calls: list[tuple[str, int, int]] = []
    _, points, members = clustered(60, 10, 4)
    refine_clusters(points, members, 3, progress=lambda *call: calls.append(call))
    assert calls == [("refining clusters", number, 3) for number in (1, 2, 3)]
