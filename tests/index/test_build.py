"""Rows and states into an index."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flashhead_edge.errors import CalibrationError, OptionError
from flashhead_edge.index.build import IndexOptions, build_index, cluster_ranks
from flashhead_edge.index.centroids import fit_centroids
from flashhead_edge.index.dense import dense_argmax
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.lm_head import LmHead
from tests.tiny_heads import random_head, random_states

VOCAB, WIDTH = 301, 24
HEAD = random_head(VOCAB, WIDTH)
STATES = random_states(400, WIDTH)
SMALL = IndexOptions(cluster_size=8, always_scored=16)


def build(
    head: LmHead = HEAD, states: np.ndarray = STATES, *, always: tuple[int, ...] = (), **options: Any
) -> HeadIndex:
    values = {field.name: getattr(SMALL, field.name) for field in fields(SMALL)} | options
    return build_index(head, states, IndexOptions(**values), always=always, num_probes=3)


def cluster_of(index: HeadIndex) -> np.ndarray:
    """Cluster of every token, -1 for those that are always scored."""
    clusters = index.slot_of_token // index.cluster_size
    return np.where(clusters < index.num_clusters, clusters, -1)


def containment(head: LmHead, index: HeadIndex, states: np.ndarray, probes: int) -> float:
    """Share of states whose dense token is among the candidates."""
    tokens = dense_argmax(head, torch.from_numpy(states))
    ranks = cluster_ranks(
        torch.from_numpy(states),
        tokens,
        torch.from_numpy(cluster_of(index)).long(),
        torch.from_numpy(index.centroids),
        torch.from_numpy(index.selection_offset + index.centroid_bias),
    )
    return float((ranks < probes).float().mean())


def low_rank_problem(seed: int = 0) -> tuple[LmHead, np.ndarray, np.ndarray]:
    """Rows of which the states see only a few directions; states to learn from, and others to test with."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.normal(size=(64, 64)))[0][:6]
    rows = random.normal(size=(2000, 64)).astype(np.float32)
    states = (random.normal(size=(3000, 6)) @ basis + 0.02 * random.normal(size=(3000, 64))).astype(np.float32)
    return LmHead(rows), states[:2000], states[2000:]


def check_index(index: HeadIndex, vocab: int, always: tuple[int, ...] = ()) -> None:
    """Shapes, types, every token once, ids ascending in a cluster."""
    clusters, size = index.num_clusters, index.cluster_size
    assert index.vocab_size == vocab
    assert index.token_order.dtype == np.int32
    assert sorted(index.token_order[index.token_order >= 0]) == list(range(vocab))
    assert index.centroids.shape == (clusters, index.hidden_size)
    assert index.centroid_bias.shape == index.selection_offset.shape == index.cluster_variance.shape == (clusters,)
    for array in (index.centroids, index.centroid_bias, index.selection_offset, index.cluster_variance):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert (index.cluster_variance >= 0).all()
    assert set(always) <= set(index.always_scored)
    assert index.token_order[clusters:].size % size == 0


@pytest.mark.parametrize("size", [1, 7, 8, 16, 150])
def test_an_index_holds_every_token_once(size: int) -> None:
    index = build(cluster_size=size, always=(5, 300))
    check_index(index, VOCAB, (5, 300))
    assert index.num_clusters == -(-VOCAB // size)
    assert index.cluster_size == -(-VOCAB // index.num_clusters) <= size


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    vocab=st.integers(20, 200),
    size=st.integers(1, 10),
    slots=st.integers(0, 30),
    always=st.sets(st.integers(0, 19), max_size=12),
    bias=st.booleans(),
)
def test_any_shape(vocab: int, size: int, slots: int, always: set[int], bias: bool) -> None:
    head = random_head(vocab, 16, bias=bias)
    index = build(head, random_states(30, 16), cluster_size=size, always_scored=slots, always=tuple(always), rounds=2)
    check_index(index, vocab, tuple(always))
    room = -(-max(slots, len(always)) // index.cluster_size) * index.cluster_size
    assert len(index.always_scored) <= index.num_always_clusters * index.cluster_size <= room


def test_the_number_of_clusters_may_be_set() -> None:
    index = build(num_clusters_override=37, cluster_size=9999)
    check_index(index, VOCAB)
    assert (index.num_clusters, index.cluster_size) == (37, 9)


def test_the_same_input_gives_the_same_index() -> None:
    first, second, other = build(), build(), build(seed=1)
    for field in fields(HeadIndex):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
    assert not np.array_equal(first.token_order, other.token_order)


def test_the_input_stays_as_it_was() -> None:
    rows, states = HEAD.rows.copy(), STATES.copy()
    build(always=(1,))
    np.testing.assert_array_equal(HEAD.rows, rows)
    np.testing.assert_array_equal(STATES, states)


def test_always_scored_tokens_are_moved_not_copied() -> None:
    always = (300, 0, 17, 0)
    index = build(always=always)
    check_index(index, VOCAB, always)
    assert index.num_always_clusters == 2
    assert (cluster_of(index)[list(always)] == -1).all()
    assert np.all(np.diff(index.always_scored) > 0)
    assert index.token_order[: index.num_clusters].size - (index.token_order[: index.num_clusters] >= 0).sum() > 16 - 8


def test_emptied_clusters_are_opened_last() -> None:
    """Control tokens resemble each other: where all of a cluster move out, it has nothing to open it for."""
    random = np.random.default_rng(0)
    mean = random.normal(size=WIDTH).astype(np.float32)
    rows = (random.normal(size=(512, WIDTH)) * 0.3 - mean).astype(np.float32)
    rows[:16] = mean + 0.01 * random.normal(size=(16, WIDTH))
    states = (random.normal(size=(300, WIDTH)) + 2 * mean).astype(np.float32)
    index = build(LmHead(rows), states, always=tuple(range(16)))
    empty = np.flatnonzero((index.token_order[: index.num_clusters] < 0).all(axis=1))
    assert len(empty) == 2
    scores = states @ index.centroids.T + index.centroid_bias + index.selection_offset
    assert set(np.argsort(scores, axis=1)[:, :2].ravel()) == set(empty)


def test_more_ids_than_slots_are_all_scored() -> None:
    always = tuple(range(40))
    index = build(always=always, always_scored=0)
    assert index.always_scored.tolist() == list(always)


def test_none_are_always_scored_where_none_are_asked_for() -> None:
    index = build(always_scored=0)
    assert index.num_always_clusters == 0
    assert index.always_scored.tolist() == []


def test_slots_go_to_the_tokens_most_missed() -> None:
    """They are scored always because otherwise their clusters would not be opened."""
    base = build(always_scored=0)
    tokens = dense_argmax(HEAD, torch.from_numpy(STATES))
    ranks = cluster_ranks(
        torch.from_numpy(STATES),
        tokens,
        torch.from_numpy(cluster_of(base)).long(),
        torch.from_numpy(base.centroids),
        torch.from_numpy(base.selection_offset + base.centroid_bias),
    )
    missed = torch.bincount(tokens[ranks >= 3], minlength=VOCAB)
    index = build(always_scored=16)
    assert len(index.always_scored) == 16
    chosen = missed[index.always_scored.astype(int)].sum()
    assert chosen > 0.6 * missed.sort(descending=True).values[:16].sum()
    assert containment(HEAD, index, STATES, 3) > containment(HEAD, base, STATES, 3)


def test_clusters_that_lost_tokens_are_fitted_again() -> None:
    """The index is as if its clusters had never held the tokens that moved out."""
    index = build(always=(3, 4))
    own = torch.from_numpy(index.token_order[: index.num_clusters].astype(np.int64))
    before = build(always_scored=0).token_order.astype(np.int64)
    states = torch.from_numpy(STATES)
    fit = partial(fit_centroids, HEAD, states, num_probes=3, prior_states=SMALL.prior_states)
    fitted = fit(own, threshold=fit(torch.from_numpy(before)).threshold)
    np.testing.assert_allclose(index.centroids, fitted.rows, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(index.centroid_bias, fitted.bias, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(index.selection_offset, fitted.selection_offset, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(index.cluster_variance, fitted.variance, rtol=1e-3, atol=1e-4)


def test_fitted_centroids_contain_more_than_mean_rows() -> None:
    """Where rows differ in length, a cluster's best logit is a long row's, and its mean row says little of it."""
    head, states, unseen = low_rank_problem(2)
    lengths = np.random.default_rng(0).lognormal(sigma=0.7, size=(head.vocab_size, 1)).astype(np.float32)
    head = LmHead(head.rows * lengths)
    fitted, means = (
        containment(head, build(head, states, cluster_size=16, always_scored=0, prior_states=prior), unseen, 4)
        for prior in (1.0, 1e12)
    )
    assert fitted > means + 0.05


def test_activation_aware_clusters_contain_more_than_euclidean_ones() -> None:
    head, states, unseen = low_rank_problem()
    isotropic = np.random.default_rng(1).normal(size=states.shape).astype(np.float32)  # every direction counts the same
    plain = {"cluster_size": 16, "always_scored": 0, "prior_states": 1e12}
    aware, euclidean = (containment(head, build(head, s, **plain), unseen, 4) for s in (states, isotropic))
    assert aware > euclidean + 0.3
    assert aware > 0.7


def test_slots_contain_more() -> None:
    head, states, unseen = low_rank_problem(1)
    none, some = (
        containment(head, build(head, states, cluster_size=16, always_scored=slots), unseen, 2) for slots in (0, 100)
    )
    assert some > none + 0.02


def test_a_bias_takes_part_in_choosing() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32) * 0.01
    bias = np.linspace(-5, 5, 200).astype(np.float32)
    head = LmHead(rows, bias)
    states = random_states(100, 16)
    index = build(head, states, always_scored=8)
    assert containment(head, index, states, 3) == 1.0


def test_ranks_count_the_clusters_above() -> None:
    states = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    centroids = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    clusters = torch.tensor([0, 1, 2, -1])
    offset = torch.tensor([0.0, 0.0, 1.5])

    def ranks(tokens: list[int]) -> list[int]:
        return cluster_ranks(states, torch.tensor(tokens), clusters, centroids, offset, batch=1).tolist()

    assert ranks([0, 0]) == [2, 1]  # equal scores do not count as above
    assert ranks([1, 2]) == [0, 0]
    assert ranks([3, 3]) == [0, 0]


@pytest.mark.parametrize("options", [{"cluster_size": 0}, {"cluster_size": 151}, {"cluster_size": -3}])
def test_the_cluster_size_is_checked(options: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="1 to 150"):
        build(**options)


@pytest.mark.parametrize("number", [0, 1, 302])
def test_the_number_of_clusters_is_checked(number: int) -> None:
    with pytest.raises(OptionError, match="2 to 301"):
        build(num_clusters_override=number)


@pytest.mark.parametrize("probes", [0, 39])
def test_the_probes_are_checked(probes: int) -> None:
    with pytest.raises(OptionError, match="1 to 38"):
        build_index(HEAD, STATES, SMALL, num_probes=probes)


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"alpha": -0.1},
        {"alpha": 1.1},
        {"alpha": float("nan")},
        {"prior_states": 0.0},
        {"prior_states": float("nan")},
        {"always_scored": -1},
        {"rounds": -1},
    ],
    ids=str,
)
def test_other_options_are_checked_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        IndexOptions(**options)


@pytest.mark.parametrize("token", [-1, VOCAB])
def test_ids_that_are_always_scored_must_exist(token: int) -> None:
    with pytest.raises(OptionError, match=f"0 to {VOCAB - 1}"):
        build(always=(2, token))


@pytest.mark.parametrize(
    "states",
    [np.zeros((0, WIDTH)), np.zeros((5, WIDTH + 1)), np.zeros(WIDTH), np.zeros((2, 3, WIDTH))],
    ids=lambda states: str(states.shape),
)
def test_states_must_fit(states: np.ndarray) -> None:
    with pytest.raises(CalibrationError, match=rf"\[N, {WIDTH}\]"):
        build(states=states.astype(np.float32))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_states_must_be_finite(number: float) -> None:
    states = STATES.copy()
    states[[3, 8], 2] = number
    with pytest.raises(CalibrationError, match="2 of 400 states"):
        build(states=states)


def test_states_must_say_something() -> None:
    with pytest.raises(CalibrationError, match="zero"):
        build(states=np.zeros((10, WIDTH), np.float32))


def test_progress_tells_every_stage() -> None:
    stages: list[str] = []
    build_index(HEAD, STATES, SMALL, num_probes=3, progress=lambda stage, done, total: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["clustering", "fitting centroids"]


@pytest.mark.parametrize("bias", [False, True])
def test_centroids_of_low_rank_lie_in_the_leading_directions(bias: bool) -> None:
    index = build(random_head(VOCAB, WIDTH, bias=bias), centroid_rank=9)
    check_index(index, VOCAB)
    projection = index.projection
    assert projection is not None
    assert projection.shape == (WIDTH, 9)
    assert projection.dtype == np.float32
    np.testing.assert_allclose(projection.T @ projection, np.eye(9), atol=1e-5)
    np.testing.assert_allclose(index.narrow_centroids @ projection.T, index.centroids, atol=1e-4)


def test_where_states_see_few_directions_a_low_rank_loses_nothing() -> None:
    head, states, others = low_rank_problem()
    options = {"cluster_size": 10, "always_scored": 0}
    full = containment(head, build(head, states, **options), others, 20)
    narrow = containment(head, build(head, states, **options, centroid_rank=6), others, 20)
    too_narrow = containment(head, build(head, states, **options, centroid_rank=2), others, 20)
    assert narrow >= full - 0.01
    assert too_narrow < narrow


@pytest.mark.parametrize("rank", [WIDTH, WIDTH + 1])
def test_the_full_rank_needs_no_projection(rank: int) -> None:
    assert build(centroid_rank=rank).projection is None
