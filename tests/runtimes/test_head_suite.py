"""What every runtime must do, whatever the precisions; a new runtime joins by its name in the registry."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashhead_edge.errors import OptionError
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.lm_head import LmHead
from flashhead_edge.runtimes import RUNTIMES as ALL_RUNTIMES
from flashhead_edge.runtimes import open_head
from flashhead_edge.runtimes.base import HeadOutput, HeadRuntime
from tests.tiny_heads import (
    by_token,
    dense_logits,
    head_bundle,
    int8_head,
    random_head,
    random_index,
    random_states,
    rounded,
)

#: TensorRT needs a GPU: tests/runtimes/tensorrt has what can be seen of it without one.
RUNTIMES = set(ALL_RUNTIMES) - {"tensorrt"}
VOCAB, WIDTH, SIZE = 149, 40, 6  # neither divides, and the last block of a quantized row is short
CLUSTERS = -(-VOCAB // SIZE)
ALWAYS = (0, 3, 77, 148)
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "scale": {"logit_scale": 0.0625},
    "softcap": {"logit_softcap": 8.0},
    "all": {"bias": True, "logit_scale": 2.5, "logit_softcap": 30.0},
}


class Kind(NamedTuple):
    """A runtime with its precisions."""

    runtime: str
    centroids: str
    rows: str


KINDS = [
    Kind(*parts) for parts in itertools.product(sorted(RUNTIMES), ("fp32", "int8", "int4"), ("float32", "float16"))
]


@pytest.fixture(params=KINDS, ids="-".join)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def opened(kind: Kind, tmp_path: Path) -> Callable[..., HeadRuntime]:
    """Opens a head on the runtime under test."""

    def open_it(head: LmHead, index: HeadIndex, num_probes: int) -> HeadRuntime:
        bundle = head_bundle(
            tmp_path / str(len(list(tmp_path.iterdir()))),
            head,
            index,
            num_probes,
            centroids=kind.centroids,
            rows=kind.rows,
        )
        return open_head(bundle, kind.runtime)

    return open_it


def check_contract(output: HeadOutput, index: HeadIndex, num_probes: int, batch: int) -> None:
    """What holds for any head and any states."""
    candidates = index.num_candidates(num_probes)
    assert [array.shape for array in output] == [
        (batch,),
        (batch, candidates),
        (batch, candidates),
        (batch, index.num_clusters),
    ]
    assert [array.dtype.name for array in output] == ["int64", "int64", "float32", "float32"]
    assert np.isfinite(output.cluster_scores).all()
    np.testing.assert_array_equal(np.isneginf(output.candidate_logits), output.candidate_ids < 0)
    assert not np.isnan(output.candidate_logits).any()
    for token, ids, logits in zip(output.token_ids, output.candidate_ids, output.candidate_logits, strict=True):
        real = ids[ids >= 0]
        assert len(np.unique(real)) == len(real)
        assert set(index.always_scored) <= set(real)
        assert token == ids[logits == logits.max()].min() >= 0


@pytest.mark.parametrize("features", HEADS.values(), ids=HEADS.keys())
def test_with_every_cluster_open_it_is_the_dense_head(kind: Kind, opened: Any, features: dict[str, Any]) -> None:
    head = random_head(VOCAB, WIDTH, **features)
    index = random_index(head, SIZE, always=ALWAYS)
    states = random_states(16, WIDTH)
    output = opened(head, index, CLUSTERS).run(states)
    check_contract(output, index, CLUSTERS, 16)
    dense = dense_logits(rounded(head, kind.rows), states)
    np.testing.assert_allclose(
        by_token(output.candidate_ids, output.candidate_logits, VOCAB), dense, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(output.token_ids, dense.argmax(axis=1))


@pytest.mark.parametrize("features", HEADS.values(), ids=HEADS.keys())
def test_candidates_have_exact_logits(kind: Kind, opened: Any, features: dict[str, Any]) -> None:
    head = random_head(VOCAB, WIDTH, seed=2, **features)
    index = random_index(head, SIZE, always=ALWAYS, seed=2)
    states = random_states(9, WIDTH)
    output = opened(head, index, 4).run(states)
    check_contract(output, index, 4, 9)
    logits = by_token(output.candidate_ids, output.candidate_logits, VOCAB)
    dense = np.where(np.isnan(logits), np.nan, dense_logits(rounded(head, kind.rows), states))
    np.testing.assert_allclose(logits, dense, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(output.token_ids, np.nanargmax(dense, axis=1))


@pytest.mark.parametrize("features", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("runtime", sorted(RUNTIMES))
def test_int8_rows_are_scored_as_they_are_stored(runtime: str, tmp_path: Path, features: dict[str, Any]) -> None:
    head = int8_head(VOCAB, 64, seed=2, **features)
    index = random_index(head, SIZE, always=ALWAYS, seed=2)
    states = random_states(9, 64)
    bundle = head_bundle(tmp_path / "b", head, index, 4, centroids="int8", rows="int8")
    output = open_head(bundle, runtime).run(states)
    check_contract(output, index, 4, 9)
    logits = by_token(output.candidate_ids, output.candidate_logits, VOCAB)
    dense = np.where(np.isnan(logits), np.nan, dense_logits(head, states))
    np.testing.assert_allclose(logits, dense, rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(output.token_ids, np.nanargmax(dense, axis=1))


@pytest.mark.parametrize("features", HEADS.values(), ids=HEADS.keys())
def test_cluster_scores_are_the_centroids_logits(kind: Kind, opened: Any, features: dict[str, Any]) -> None:
    head = random_head(VOCAB, WIDTH, **features)
    index = random_index(head, SIZE, always=ALWAYS)
    states = random_states(12, WIDTH)
    scores = opened(head, index, 3).run(states).cluster_scores
    centroids = LmHead(index.centroids, index.centroid_bias, head.logit_scale, head.logit_softcap)
    expected = dense_logits(centroids, states)
    tolerance = {"fp32": 1e-5, "int8": 0.02, "int4": 0.2}[kind.centroids]  # of the scores' spread
    assert np.abs(scores - expected).max() < tolerance * expected.std() * 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.centroids == "fp32"], ids="-".join, indirect=True)
def test_the_clusters_with_the_best_scores_are_opened(opened: Any) -> None:
    """Rounded centroids may choose others, each runtime its own."""
    head = random_head(VOCAB, WIDTH, bias=True)
    index = random_index(head, SIZE, always=ALWAYS)
    states = random_states(16, WIDTH)
    output = opened(head, index, 4).run(states)
    scores = states.astype(np.float64) @ index.centroids.T + index.centroid_bias + index.selection_offset
    for row, ids in zip(scores, output.candidate_ids, strict=True):
        clusters = [*np.argsort(-row)[:4], *range(CLUSTERS, len(index.token_order))]
        assert sorted(ids) == sorted(index.token_order[clusters].ravel())


def test_padding_never_wins(opened: Any) -> None:
    head = random_head(VOCAB, WIDTH, bias=True)
    head.bias[:] -= 1e30  # type: ignore[index]
    index = random_index(head, SIZE, always=ALWAYS)
    for probes in (1, CLUSTERS):
        output = opened(head, index, probes).run(random_states(8, WIDTH))
        check_contract(output, index, probes, 8)
        assert output.candidate_logits.max() < -1e29


def test_ties_go_to_the_lowest_id(opened: Any) -> None:
    random = np.random.default_rng(0)
    rows = random.integers(-1, 2, size=(VOCAB, WIDTH)).astype(np.float32)  # whole numbers: no order of sums matters
    best = np.ones(WIDTH, np.float32)
    rows[[7, 60, 61, 130]] = best
    rows[[100, 12]] = -best
    head = LmHead(rows)
    for seed in range(3):
        index = random_index(head, SIZE, always=ALWAYS, seed=seed)
        output = opened(head, index, CLUSTERS).run(np.stack([best, -best]))
        assert output.token_ids.tolist() == [7, 12]


def test_all_logits_equal_gives_token_zero(opened: Any) -> None:
    head = random_head(VOCAB, WIDTH)
    index = random_index(head, SIZE, always=(5, 9))
    output = opened(head, index, CLUSTERS).run(np.zeros((2, WIDTH), np.float32))
    assert output.token_ids.tolist() == [0, 0]


def test_a_batch_is_its_rows(kind: Kind, opened: Any) -> None:
    head = random_head(VOCAB, WIDTH, bias=True, logit_softcap=20.0)
    index = random_index(head, SIZE, always=ALWAYS)
    runtime = opened(head, index, 4)
    states = random_states(16, WIDTH)
    alone = [runtime.run(states[i : i + 1]) for i in range(16)]
    for batch in range(1, 17):
        together = runtime.run(states[:batch])
        check_contract(together, index, 4, batch)
        single = HeadOutput(*(np.concatenate(parts) for parts in zip(*alone[:batch], strict=True)))
        np.testing.assert_array_equal(together.token_ids, single.token_ids)
        np.testing.assert_allclose(together.cluster_scores, single.cluster_scores, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            by_token(together.candidate_ids, together.candidate_logits, VOCAB),
            by_token(single.candidate_ids, single.candidate_logits, VOCAB),
            rtol=1e-4,
            atol=1e-5,
        )


def test_without_always_scored_tokens(opened: Any) -> None:
    head = random_head(60, 32)
    index = random_index(head, 4)
    assert index.num_always_clusters == 0
    check_contract(opened(head, index, 2).run(random_states(3, 32)), index, 2, 3)


def test_the_shape_is_reported(kind: Kind, opened: Any) -> None:
    head = random_head(VOCAB, WIDTH)
    runtime = opened(head, random_index(head, SIZE, always=ALWAYS), 4)
    assert runtime.name == kind.runtime
    assert runtime.providers
    assert runtime.shape == (type(runtime.shape))(VOCAB, WIDTH, CLUSTERS, SIZE, 4, 5 * SIZE)


@pytest.mark.parametrize(
    "states",
    [
        np.zeros(WIDTH, np.float32),
        np.zeros((2, WIDTH + 1), np.float32),
        np.zeros((0, WIDTH), np.float32),
        np.zeros((2, 1, WIDTH), np.float32),
        np.zeros((2, WIDTH), np.int64),
        np.zeros((2, WIDTH), np.complex64),
        np.zeros((), np.float32),
    ],
    ids=lambda states: f"{states.dtype.name}{list(states.shape)}",
)
@pytest.mark.parametrize("runtime", sorted(RUNTIMES))
def test_states_that_do_not_fit_are_refused(tmp_path: Path, runtime: str, states: np.ndarray) -> None:
    head = random_head(VOCAB, WIDTH)
    opened = open_head(head_bundle(tmp_path / "b", head, random_index(head, SIZE), 4), runtime)
    with pytest.raises(OptionError, match=rf"\[B, {WIDTH}\]"):
        opened.run(states)


@pytest.mark.parametrize("runtime", sorted(RUNTIMES))
def test_other_floats_and_strides_are_converted(tmp_path: Path, runtime: str) -> None:
    head = random_head(VOCAB, WIDTH)
    opened = open_head(head_bundle(tmp_path / "b", head, random_index(head, SIZE), 4), runtime)
    states = random_states(3, WIDTH)
    expected = opened.run(states)
    for same in (states.astype(np.float64), np.asfortranarray(states), np.repeat(states, 2, axis=1)[:, ::2]):
        for found, value in zip(opened.run(same), expected, strict=True):
            np.testing.assert_array_equal(found, value)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("runtime", sorted(RUNTIMES - {"reference"}))
def test_it_agrees_with_the_reference_on_any_shape(tmp_path: Path, runtime: str, data: st.DataObject) -> None:
    """Over shapes that hypothesis thinks of."""
    vocab = data.draw(st.integers(40, 300), "V")
    width = data.draw(st.sampled_from(range(8, 65, 8)), "H")
    size = data.draw(st.integers(1, 9), "C")
    probes = data.draw(st.integers(1, -(-vocab // size)), "P")
    batch = data.draw(st.integers(1, 16), "B")
    always = tuple(sorted(data.draw(st.sets(st.integers(0, vocab - 1), max_size=20), "always")))
    features = data.draw(st.sampled_from(list(HEADS.values())), "features")
    rows = data.draw(st.sampled_from(["float32", "float16"]), "rows")
    rank = data.draw(st.none() | st.integers(1, width), "r")
    head = random_head(vocab, width, seed=vocab, **features)
    index = random_index(head, size, always=always, seed=width, rank=rank)
    states = random_states(batch, width, seed=probes)
    bundle = head_bundle(tmp_path / str(len(list(tmp_path.iterdir()))), head, index, probes, rows=rows)
    first = open_head(bundle, "reference").run(states)
    output = open_head(bundle, runtime).run(states)
    check_contract(output, index, probes, batch)
    np.testing.assert_array_equal(np.sort(output.candidate_ids), np.sort(first.candidate_ids))
    np.testing.assert_array_equal(output.token_ids, first.token_ids)
    np.testing.assert_allclose(output.cluster_scores, first.cluster_scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        by_token(output.candidate_ids, output.candidate_logits, vocab),
        by_token(first.candidate_ids, first.candidate_logits, vocab),
        rtol=1e-4,
        atol=1e-5,
    )
