"""The distribution over the whole vocabulary: by hand, and that it is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_heads import dense_logits, random_head, random_index, random_states, table_bias, table_rows

from flashhead_edge.index.distribution import VocabularyDistribution, log_sum_exp
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.runtimes.base import HeadOutput
from flashhead_edge.runtimes.reference import ReferenceHead


def reference(head, index, num_probes):
    return ReferenceHead(
        index,
        table_rows(head, index),
        num_probes,
        row_bias=table_bias(head, index),
        logit_scale=head.logit_scale,
        logit_softcap=head.logit_softcap,
    )


@pytest.fixture
def index():
    """Clusters {0, 1}, {2, 3} and {4, hole}; 5 and 6 are always scored."""
    return HeadIndex(
        token_order=np.array([[0, 1], [2, 3], [4, -1], [5, 6]], np.int32),
        centroids=np.zeros((3, 4), np.float32),
        centroid_bias=np.zeros(3, np.float32),
        selection_offset=np.zeros(3, np.float32),
        cluster_variance=np.array([9.0, 2.0, 4.0], np.float32),
        vocab_size=7,
    )


#: Cluster 0 was opened.
OUTPUT = HeadOutput(
    np.array([0]),
    np.array([[0, 1, 5, 6]]),
    np.array([[3.0, 1.0, 2.0, -1.0]], np.float32),
    np.array([[2.5, 0.5, -1.0]], np.float32),
)


def test_by_hand(index):
    distribution = VocabularyDistribution(index)
    total = np.log(np.exp([3.0, 1.0, 2.0, -1.0]).sum() + 2 * np.exp(0.5 + 1.0) + np.exp(-1.0 + 2.0))
    np.testing.assert_allclose(distribution.log_partition(OUTPUT), [total], rtol=1e-6)
    expected = np.array([3.0, 1.0, 1.5, 1.5, 1.0, 2.0, -1.0]) - total
    np.testing.assert_allclose(distribution.log_probabilities(OUTPUT), expected[None], rtol=1e-6)
    assert distribution.opened(OUTPUT.candidate_ids).tolist() == [[True, False, False]]


def test_scale_and_softcap_change_the_variance(index):
    distribution = VocabularyDistribution(index, logit_scale=0.5, logit_softcap=2.0)
    slopes = 1 - (np.array([0.5, -1.0]) / 2.0) ** 2
    members = np.array([0.5, -1.0]) + np.array([2.0, 4.0]) * 0.25 * slopes**2 / 2
    total = np.log(np.exp([3.0, 1.0, 2.0, -1.0]).sum() + (np.array([2, 1]) * np.exp(members)).sum())
    np.testing.assert_allclose(distribution.log_partition(OUTPUT), [total], rtol=1e-6)


def test_padding_and_a_cluster_without_tokens_have_no_mass(index):
    order = np.array([[0, 1], [2, 3], [-1, -1], [4, 5]], np.int32)
    index = HeadIndex(order, index.centroids, index.centroid_bias, index.selection_offset, index.cluster_variance, 6)
    output = HeadOutput(
        np.array([0]),
        np.array([[0, 1, -1, -1, 4, 5]]),
        np.array([[0.0, 0.0, -np.inf, -np.inf, 0.0, 0.0]], np.float32),
        np.array([[0.0, -1.0, 50.0]], np.float32),
    )
    np.testing.assert_allclose(np.exp(VocabularyDistribution(index).log_probabilities(output)), np.full((1, 6), 1 / 6))


@settings(deadline=None, max_examples=60)
@given(
    vocab=st.integers(4, 60),
    size=st.integers(1, 7),
    always=st.integers(0, 3),
    probes=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    options=st.sampled_from([{}, {"logit_scale": 0.3, "bias": True}, {"logit_softcap": 4.0}]),
)
def test_it_sums_to_one_and_candidates_keep_their_odds(vocab, size, always, probes, seed, options):
    head = random_head(vocab, 8, seed=seed, **options)
    index = random_index(head, size, always=tuple(range(always)), seed=seed)
    output = reference(head, index, min(probes, index.num_clusters)).run(random_states(3, 8, seed=seed))
    distribution = VocabularyDistribution(index, logit_scale=head.logit_scale, logit_softcap=head.logit_softcap)
    logs = distribution.log_probabilities(output)
    np.testing.assert_allclose(np.exp(logs.astype(np.float64)).sum(axis=1), 1, rtol=1e-5)
    for row, ids, logits in zip(logs, output.candidate_ids, output.candidate_logits, strict=True):
        real = ids >= 0
        np.testing.assert_allclose(row[ids[real]] - row[ids[real][0]], logits[real] - logits[real][0], atol=1e-5)


def test_with_every_cluster_open_it_is_the_dense_distribution():
    head = random_head(50, 8, bias=True)
    index = random_index(head, 4, always=(1, 2))
    states = random_states(4, 8)
    logs = VocabularyDistribution(index).log_probabilities(reference(head, index, index.num_clusters).run(states))
    logits = dense_logits(head, states)
    np.testing.assert_allclose(logs, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), atol=1e-5)


def test_the_variance_term_is_the_mean_of_exponentials_of_normal_logits():
    size, deviation = 200_000, 0.7
    logits = np.random.default_rng(0).normal(1.0, deviation, size)
    assert np.log(np.exp(logits).sum()) == pytest.approx(np.log(size) + 1.0 + deviation**2 / 2, abs=5e-3)


def test_great_logits_do_not_overflow():
    logits = np.array([[1e4, 1e4, -np.inf]], np.float32)
    np.testing.assert_allclose(log_sum_exp(logits), [1e4 + np.log(2)])
