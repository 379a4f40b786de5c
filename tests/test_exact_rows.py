"""Exact logits of single tokens and whole clusters, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_heads import dense_logits, head_bundle, random_head, random_index, random_states, rounded, table_rows

from flashhead_edge.exact_rows import ExactRows

HEADS = {
    "plain": {},
    "biased and scaled": {"bias": True, "logit_scale": 0.4},
    "soft-capped": {"bias": True, "logit_softcap": 3.0},
}


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_logits_are_those_of_the_dense_head(tmp_path, options, dtype):
    head = random_head(53, 16, **options)
    index = random_index(head, 4, always=(0, 7, 8))
    rows = ExactRows.from_bundle(head_bundle(tmp_path / "bundle", head, index, 2, rows=dtype))
    for state, expected in zip(
        random_states(3, 16), dense_logits(rounded(head, dtype), random_states(3, 16)), strict=True
    ):
        ids = np.array([5, 0, 52, 7])
        np.testing.assert_allclose(rows.token_logits(state, ids), expected[ids], atol=1e-5)
        every = np.arange(len(index.token_order))
        tokens, logits = rows.cluster_logits(state, every)
        assert sorted(tokens.tolist()) == list(range(53))
        np.testing.assert_allclose(logits, expected[tokens], atol=1e-5)


def test_no_token_and_no_cluster(tmp_path):
    head = random_head(20, 8)
    rows = ExactRows.from_bundle(head_bundle(tmp_path / "bundle", head, random_index(head, 4), 2))
    none = np.array([], np.int64)
    assert rows.token_logits(random_states(1, 8)[0], none).shape == (0,)
    assert [part.shape for part in rows.cluster_logits(random_states(1, 8)[0], none)] == [(0,), (0,)]


def test_threads_share_many_rows_and_change_nothing():
    head = random_head(9000, 8)
    index = random_index(head, 16)
    table = table_rows(head, index)
    state, slots = random_states(1, 8)[0], np.random.default_rng(0).permutation(9000)
    alone, shared = (ExactRows(index, table, threads=threads).slot_logits(state, slots) for threads in (1, 3))
    np.testing.assert_array_equal(alone, shared)
