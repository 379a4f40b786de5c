"""The operator over tables that it is fed, against the bundle's own head and the dense one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from flashhead_edge import Bundle, layout, native
from flashhead_edge.profiling.fed_head import FedHead, FedTables
from flashhead_edge.profiling.head_series import dense_tokens
from flashhead_edge.runtimes.reference import ReferenceHead
from tests.tiny_heads import random_states

pytestmark = pytest.mark.skipif(not native.is_available(), reason="no native library")


@pytest.fixture(params=[None, 16], ids=["full", "projected"])
def bundle(request: pytest.FixtureRequest, whole_bundle: Callable[..., Bundle]) -> Bundle:
    return whole_bundle(centroid_rank=request.param)


@pytest.fixture
def tables(bundle: Bundle) -> FedTables:
    return FedTables.from_bundle(bundle, bundle.index())


def test_it_is_the_bundles_head(bundle: Bundle, tables: FedTables) -> None:
    states = random_states(50, bundle.manifest.hidden_size)
    head = FedHead(tables, bundle.manifest.index.num_probes, threads=1)
    np.testing.assert_array_equal(head.tokens(states), ReferenceHead.from_bundle(bundle).run(states).token_ids)


def test_all_clusters_opened_is_the_dense_head(bundle: Bundle, tables: FedTables) -> None:
    states = random_states(50, bundle.manifest.hidden_size)
    dense = dense_tokens(tables, states)
    rows = bundle.table(layout.ROWS).astype(np.float32)
    order = bundle.index().token_order
    logits = np.full((50, bundle.manifest.vocab_size), -np.inf, np.float32)
    logits[:, order[order >= 0]] = states @ rows[order >= 0].T
    np.testing.assert_array_equal(dense, logits.argmax(axis=1))
    np.testing.assert_array_equal(FedHead(tables, len(tables.bias), threads=1).tokens(states), dense)


def test_joined_clusters_hold_the_same_rows(bundle: Bundle, tables: FedTables) -> None:
    states = random_states(20, bundle.manifest.hidden_size)
    joined, first = tables.joined(4), tables.first(len(tables.bias))
    assert len(joined.bias) == len(tables.bias) // 4
    everything = [FedHead(part, len(part.bias), threads=1).tokens(states) for part in (joined, first)]
    np.testing.assert_array_equal(*everything)
    few = tables.first(3)
    assert few.table.shape[0] == len(few.bias) == 3
    assert np.isin(FedHead(few, 3, threads=1).tokens(states), tables.token_order[:3]).all()


def test_times_are_of_other_states_each_time(bundle: Bundle, tables: FedTables) -> None:
    head = FedHead(tables, 4, threads=1)
    flush = np.zeros(1000, np.uint8)
    times = head.seconds(random_states(8, bundle.manifest.hidden_size), 2, 5, flush)
    assert len(times) == 5
    assert min(times) > 0
    assert flush[0] == 8  # before each of them, those that do not count included
