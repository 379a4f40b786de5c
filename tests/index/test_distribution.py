"""The distribution over the whole vocabulary: by hand, and what it is built on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_heads import dense_logits, random_head, random_index, random_states, table_bias, table_rows

from flashhead_edge.index.distribution import ENVELOPE, VocabularyDistribution, log_sum_exp
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
        selection_offset=np.array([0.1, 0.3, 0.0], np.float32),
        cluster_variance=np.zeros(3, np.float32),
        vocab_size=7,
    )


#: Cluster 0 was opened: too few to say how wrong scores are at this state.
OUTPUT = HeadOutput(
    np.array([0]),
    np.array([[0, 1, 5, 6]]),
    np.array([[3.0, 1.0, 2.0, -1.0]], np.float32),
    np.array([[2.5, 0.5, -1.0]], np.float32),
)


def test_by_hand(index):
    distribution = VocabularyDistribution(index)
    closed = [-np.inf, 0.5 + np.log(2), -1.0]
    np.testing.assert_allclose(distribution.closed_log_masses(OUTPUT), [closed], rtol=1e-6)
    total = np.log(np.exp([3.0, 1.0, 2.0, -1.0]).sum() + np.exp(closed).sum())
    np.testing.assert_allclose(distribution.log_partition(OUTPUT), [total], rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.25, 0.5, 2.0])
def test_other_temperatures_by_hand(index, temperature):
    distribution = VocabularyDistribution(index)
    rest = np.log(2) * (1 - 0.3 / np.log(2)) ** (1 / temperature)
    closed = [-np.inf, (0.5 + 0.3) / temperature + rest, -1.0 / temperature]
    np.testing.assert_allclose(distribution.closed_log_masses(OUTPUT, temperature), [closed], rtol=1e-6)


def test_scale_and_softcap_change_the_offset(index):
    distribution = VocabularyDistribution(index, logit_scale=0.5, logit_softcap=2.0)
    offset = 0.15 * (1 - (0.5 / 2.0) ** 2)
    expected = 2 * (0.5 + offset) + np.log(2) * (1 - offset / np.log(2)) ** 2
    assert distribution.closed_log_masses(OUTPUT, 0.5)[0, 1] == pytest.approx(expected)


def test_opened_clusters_correct_the_closed_ones():
    """Every score is too low by the same: half of it is made good."""
    order = np.arange(16, dtype=np.int32).reshape(8, 2)
    zeros = np.zeros(8, np.float32)
    index = HeadIndex(order, np.zeros((8, 4), np.float32), zeros, zeros, zeros, 16)
    scores = np.linspace(2, -2, 8, dtype=np.float32)
    for error in (-0.5, 0.0, 1.0):
        logits = np.repeat(scores[:6] + error, 2)[None].astype(np.float32)
        output = HeadOutput(np.array([0]), np.arange(12)[None], logits, scores[None])
        closed = VocabularyDistribution(index).closed_log_masses(output)[0]
        assert np.isneginf(closed[:6]).all()
        np.testing.assert_allclose(closed[6:], scores[6:] + np.log(2) + error / 2, atol=1e-3)


def test_padding_and_a_cluster_without_tokens_have_no_mass(index):
    order = np.array([[0, 1], [2, 3], [-1, -1], [4, 5]], np.int32)
    index = HeadIndex(order, index.centroids, index.centroid_bias, index.selection_offset, index.cluster_variance, 6)
    output = HeadOutput(
        np.array([0]),
        np.array([[0, 1, -1, -1, 4, 5]]),
        np.array([[0.0, 0.0, -np.inf, -np.inf, 0.0, 0.0]], np.float32),
        np.array([[0.0, 0.0, 50.0]], np.float32),
    )
    closed = VocabularyDistribution(index).closed_log_masses(output)[0]
    assert np.isneginf(closed[[0, 2]]).all()
    assert VocabularyDistribution(index).log_partition(output) == pytest.approx(np.log(6))


CASES = given(
    vocab=st.integers(4, 60),
    size=st.integers(1, 7),
    always=st.integers(0, 3),
    probes=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    options=st.sampled_from([{}, {"logit_scale": 0.3, "bias": True}, {"logit_softcap": 4.0}]),
)


@settings(deadline=None, max_examples=60)
@CASES
def test_draws_have_a_distribution_that_keeps_the_odds(vocab, size, always, probes, seed, temperature, options):
    head = random_head(vocab, 8, seed=seed, **options)
    index = random_index(head, size, always=tuple(range(always)), seed=seed)
    states = random_states(3, 8, seed=seed)
    output = reference(head, index, min(probes, index.num_clusters)).run(states)
    distribution = VocabularyDistribution(index, logit_scale=head.logit_scale, logit_softcap=head.logit_softcap)
    dense = dense_logits(head, states).astype(np.float32)
    logs = distribution.drawn_log_probabilities(dense, output, temperature)
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1, rtol=1e-6)
    closed = distribution.closed_log_masses(output, temperature)
    for row, ids, masses, logits in zip(logs, output.candidate_ids, closed, dense, strict=True):
        token = ids[ids >= 0][0]
        odds = row - row[token] - (logits - logits[token]) / temperature
        np.testing.assert_allclose(odds[ids[ids >= 0]], 0, atol=1e-4)
        for cluster in np.flatnonzero(np.isfinite(masses)):
            members = index.token_order[cluster][index.token_order[cluster] >= 0]
            true = log_sum_exp(logits[members][None] / np.float64(temperature))[0]
            expected = min(0.0, np.log(ENVELOPE) + masses[cluster] - true)
            np.testing.assert_allclose(odds[members], expected, atol=1e-4)


def test_with_every_cluster_open_it_is_the_dense_distribution():
    head = random_head(50, 8, bias=True)
    index = random_index(head, 4, always=(1, 2))
    states = random_states(4, 8)
    output = reference(head, index, index.num_clusters).run(states)
    logits = dense_logits(head, states)
    distribution = VocabularyDistribution(index)
    expected = logits - log_sum_exp(logits)[:, None]
    np.testing.assert_allclose(distribution.drawn_log_probabilities(logits, output), expected, atol=1e-5)
    np.testing.assert_allclose(distribution.log_partition(output), log_sum_exp(logits), atol=1e-5)


def test_a_tokens_own_cluster_is_taken_as_it_is(index):
    distribution = VocabularyDistribution(index)
    dense = np.array([[3.0, 1.0, 4.0, 1.5, -9.0, 2.0, -1.0]], np.float32)
    closed = np.log(np.exp([4.0, 1.5]).sum()), -1.0
    expected = np.log(np.exp([3.0, 1.0, 2.0, -1.0]).sum() + np.exp(closed).sum())
    for token in (2, 3):
        found = distribution.log_partition_beside(OUTPUT, dense, np.array([token]))
        np.testing.assert_allclose(found, [expected], rtol=1e-6)
    for token in (0, 5):
        found = distribution.log_partition_beside(OUTPUT, dense, np.array([token]))
        np.testing.assert_allclose(found, distribution.log_partition(OUTPUT))


def test_great_logits_do_not_overflow():
    logits = np.array([[1e4, 1e4, -np.inf]], np.float32)
    np.testing.assert_allclose(log_sum_exp(logits), [1e4 + np.log(2)])
