"""What an index says about itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flashhead_edge.index.head_index import HeadIndex
from tests.tiny_heads import random_head, random_index


def index_of(order: list[list[int]], clusters: int, vocab: int) -> HeadIndex:
    per_cluster = np.zeros(clusters, np.float32)
    return HeadIndex(
        np.array(order, np.int32), np.zeros((clusters, 8), np.float32), None, per_cluster, per_cluster, vocab
    )


INDEX = index_of([[4, -1], [2, 6], [0, 5], [3, 1]], clusters=3, vocab=7)


def test_sizes() -> None:
    assert (INDEX.num_clusters, INDEX.cluster_size, INDEX.hidden_size, INDEX.num_always_clusters) == (3, 2, 8, 1)


def test_costs() -> None:
    assert [INDEX.num_candidates(probes) for probes in (1, 2, 3)] == [4, 6, 8]
    assert [INDEX.rows_scored(probes) for probes in (1, 2, 3)] == [7, 9, 11]
    assert INDEX.reduction(1) == 1.0


def test_always_scored_ids_are_ascending_without_padding() -> None:
    assert INDEX.always_scored.tolist() == [1, 3]
    assert index_of([[0, 1], [2, -1]], 1, 3).always_scored.tolist() == [2]
    assert index_of([[0, 1]], 1, 2).always_scored.tolist() == []


def test_slots_invert_the_order() -> None:
    assert INDEX.slot_of_token.tolist() == [4, 7, 2, 6, 0, 5, 3]
    assert INDEX.slot_of_token.dtype == np.int32


@settings(max_examples=30, deadline=None, derandomize=True)
@given(vocab=st.integers(1, 80), size=st.integers(1, 9), always=st.sets(st.integers(0, 79), max_size=9))
def test_slots_invert_any_order(vocab: int, size: int, always: set[int]) -> None:
    ids = tuple(sorted(token for token in always if token < vocab))
    index = random_index(random_head(vocab, 8), size, always=ids)
    np.testing.assert_array_equal(index.token_order.ravel()[index.slot_of_token], np.arange(vocab))
    assert tuple(index.always_scored) == ids
