"""Balanced bisection: equal clusters of near neighbours, of any number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flashhead_edge.errors import OptionError
from flashhead_edge.index.bisection import balanced_bisection


def points_of(size: int, clusters: int, width: int, *, seed: int = 0, fill: float = 0.0) -> torch.Tensor:
    """[K * capacity, r]: random points, then rows that must be ignored."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.full((clusters * -(-size // clusters), width), fill)
    points[:size] = torch.randn((size, width), generator=generator)
    return points


def squares(points: torch.Tensor, members: torch.Tensor) -> float:
    """Sum of squared distances to the clusters' means."""
    total = 0.0
    for cluster in members:
        own = points[cluster[cluster >= 0]].double()
        total += float((own - own.mean(dim=0)).square().sum()) if len(own) else 0.0
    return total


def check_partition(members: torch.Tensor, size: int, clusters: int) -> torch.Tensor:
    """Every point once, holes last; returns the sizes."""
    capacity = -(-size // clusters)
    assert members.shape == (clusters, capacity)
    assert members.dtype == torch.int64
    assert sorted(members[members >= 0].tolist()) == list(range(size))
    filled = (members >= 0).sum(dim=1)
    assert torch.equal(members >= 0, torch.arange(capacity) < filled[:, None])
    assert members[members < 0].eq(-1).all()
    return filled


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int]:
    size = draw(st.integers(1, 300))
    return size, draw(st.integers(1, size)), draw(st.integers(1, 12))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shapes(), st.integers(0, 5))
def test_it_is_a_partition_into_even_clusters(shape: tuple[int, int, int], seed: int) -> None:
    size, clusters, width = shape
    points = points_of(size, clusters, width, seed=seed, fill=float("nan"))
    filled = check_partition(balanced_bisection(points, size, clusters, seed=seed), size, clusters)
    assert filled.min() >= 1
    levels = (clusters - 1).bit_length()
    assert filled.max() - filled.min() <= max(1, levels)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(shapes())
def test_equal_points_are_shared_out_too(shape: tuple[int, int, int]) -> None:
    size, clusters, width = shape
    points = torch.ones((clusters * -(-size // clusters), width))
    assert check_partition(balanced_bisection(points, size, clusters), size, clusters).min() >= 1


@pytest.mark.parametrize(("size", "clusters"), [(49152 // 16, 3072 // 16), (257, 17), (100, 100), (100, 1), (12, 5)])
def test_sizes_are_exact_where_they_divide(size: int, clusters: int) -> None:
    filled = check_partition(balanced_bisection(points_of(size, clusters, 8), size, clusters), size, clusters)
    if size % clusters == 0:
        assert filled.eq(size // clusters).all()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(shapes(), st.integers(0, 3))
def test_the_same_seed_gives_the_same_clusters(shape: tuple[int, int, int], seed: int) -> None:
    size, clusters, width = shape
    first, second = (balanced_bisection(points_of(size, clusters, width), size, clusters, seed=seed) for _ in range(2))
    assert torch.equal(first, second)


def test_another_seed_gives_other_clusters() -> None:
    first, second = (balanced_bisection(points_of(256, 16, 8), 256, 16, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("clusters", [2, 3, 7, 8])
def test_separated_groups_are_found(clusters: int) -> None:
    generator = torch.Generator().manual_seed(3)
    centers = torch.randn((clusters, 16), generator=generator) * 100
    group = torch.arange(clusters).repeat(20)[torch.randperm(20 * clusters, generator=generator)]
    points = centers[group] + torch.randn((len(group), 16), generator=generator)
    members = balanced_bisection(points, len(group), clusters, rounds=10)
    pure = sum(len(group[cluster].unique()) == 1 for cluster in members)
    assert pure >= clusters - (0 if clusters in (2, 8) else 2)  # a cut at a fixed size may go through a group
    assert squares(centers[group], members) < 0.35 * squares(
        centers[group], torch.arange(len(group)).view(clusters, -1)
    )


def test_it_beats_clusters_at_random_by_far() -> None:
    points = points_of(600, 40, 4)
    kept = points[:600].clone()
    members = balanced_bisection(points, 600, 40)
    assert squares(kept, members) < 0.35 * squares(kept, torch.arange(600).view(40, -1))


def test_more_rounds_do_better_than_none() -> None:
    kept = points_of(1024, 64, 8)
    none, six = (squares(kept, balanced_bisection(kept.clone(), 1024, 64, rounds=rounds)) for rounds in (0, 6))
    assert six < none


def test_points_are_used_up() -> None:
    """They end in the order of the clusters, and what lay behind them is zero."""
    points = points_of(50, 7, 6, fill=9.0)
    kept = points.clone()
    members = balanced_bisection(points, 50, 7)
    assert torch.equal(members.view(-1)[: len(points)], members.view(-1))
    filled = members.view(-1) >= 0
    torch.testing.assert_close(points[filled], kept[members.view(-1)[filled]], rtol=0, atol=0)
    assert not points[~filled].any()


@pytest.mark.parametrize(("clusters", "levels"), [(1, 0), (2, 1), (5, 3), (64, 6), (65, 7)])
def test_progress_comes_by_level(clusters: int, levels: int) -> None:
    calls: list[tuple[str, int, int]] = []
    balanced_bisection(points_of(130, clusters, 4), 130, clusters, progress=lambda *call: calls.append(call))
    assert calls == [("clustering", level + 1, levels) for level in range(levels)]


@pytest.mark.parametrize("clusters", [0, -1, 11])
def test_the_number_of_clusters_is_checked(clusters: int) -> None:
    with pytest.raises(OptionError, match="1 to 10"):
        balanced_bisection(torch.zeros((10, 2)), 10, clusters)


def test_the_number_of_rows_is_checked() -> None:
    with pytest.raises(OptionError, match="12 rows"):
        balanced_bisection(torch.zeros((10, 2)), 10, 4)
