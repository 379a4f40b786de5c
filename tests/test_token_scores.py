"""Scores of a step: what processors ask for, and that draws follow the distribution they claim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_heads import dense_logits, random_head, random_index, random_states, table_rows

from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.index.distribution import VocabularyDistribution, log_sum_exp
from flashhead_edge.runtimes.reference import ReferenceHead
from flashhead_edge.token_scores import TokenScores, WholeVocabulary

VOCAB, WIDTH, SIZE, PROBES = 120, 16, 6, 3


@pytest.fixture(scope="module")
def parts():
    head = random_head(VOCAB, WIDTH, seed=4)
    index = random_index(head, SIZE, always=(0, 1), seed=4)
    rows = table_rows(head, index)
    states = random_states(4, WIDTH, seed=5) / 2  # soft enough for all tokens to come
    output = ReferenceHead(index, rows, PROBES).run(states)
    vocabulary = WholeVocabulary(ExactRows(index, rows), VocabularyDistribution(index))
    return head, index, states, output, vocabulary


@pytest.fixture
def scores(parts):
    _, _, states, output, vocabulary = parts
    return TokenScores(output, states[1], 1, vocabulary=vocabulary)


@pytest.fixture
def dense(parts):
    head, _, states, _, _ = parts
    return dense_logits(head, states)[1]


def test_candidates_come_without_padding(scores, dense):
    assert (scores.ids >= 0).all()
    assert len(scores.ids) < VOCAB
    np.testing.assert_allclose(scores.logits, dense[scores.ids], atol=1e-5)


def test_any_token_can_be_scored(scores, dense):
    ids = np.array([3, 0, 119, 60])
    places = scores.places(ids)
    assert scores.ids[places].tolist() == ids.tolist()
    np.testing.assert_allclose(scores.logits[places], dense[ids], atol=1e-5)
    count = len(scores.ids)
    scores.include(ids)
    assert len(scores.ids) == len(set(scores.ids.tolist())) == count


def test_mass_stays_where_it_was_when_tokens_are_scored(scores):
    before = scores.closed_log_masses().copy()
    cluster = int(np.flatnonzero(np.isfinite(before))[0])
    members = scores._vocabulary.rows.index.token_order[cluster]
    members = members[members >= 0].astype(np.int64)
    scores.include(members[:2])
    share = (len(members) - 2) / len(members)
    assert scores.closed_log_masses()[cluster] == pytest.approx(before[cluster] + np.log(share))
    scores.include(members)
    assert np.isneginf(scores.closed_log_masses()[cluster])


def test_opening_every_cluster_leaves_the_dense_distribution(scores, dense):
    scores.open_clusters(np.flatnonzero(np.isfinite(scores.closed_log_masses())))
    assert sorted(scores.ids.tolist()) == list(range(VOCAB))
    assert np.isneginf(scores.closed_log_masses()).all()
    assert scores.log_partition() == pytest.approx(log_sum_exp(dense[None])[0], abs=1e-5)
    np.testing.assert_allclose(scores.logprobs(np.arange(VOCAB)), dense - log_sum_exp(dense[None]), atol=1e-5)


def test_logprobs_score_the_clusters_of_their_tokens(scores, dense):
    token = int(next(token for token in range(VOCAB) if token not in scores.ids))
    found = scores.logprobs(np.array([token]))[0]
    assert found == pytest.approx(dense[token] - scores.log_partition())
    assert found == pytest.approx(dense[token] - log_sum_exp(dense[None])[0], abs=0.3)


def test_restriction_leaves_nothing_else(scores, dense):
    scores.restrict(np.array([100, 3]))
    assert scores.ids.tolist() == [100, 3]
    assert not scores.has_rest
    assert scores.log_partition() == pytest.approx(log_sum_exp(dense[[100, 3]][None])[0], abs=1e-5)


def test_a_dense_head_has_no_rest(parts):
    _, _, states, output, _ = parts
    scores = TokenScores(output, states[0])
    assert not scores.has_rest
    assert scores.closed_log_masses().shape == (0,)
    scores.include(np.array([], np.int64))
    scores.open_clusters(np.array([0]))
    assert len(scores.ids) == (output.candidate_ids[0] >= 0).sum()


def g_test(drawn, probabilities):
    """p-value of the likelihood-ratio test; tokens that are expected less than five times are counted together."""
    counts = np.bincount(drawn, minlength=len(probabilities)).astype(float)
    expected = probabilities * counts.sum()
    rare = expected < 5
    counts, expected = (np.append(values[~rare], values[rare].sum()) for values in (counts, expected))
    if expected[-1] == 0:
        assert counts[-1] == 0
        counts, expected = counts[:-1], expected[:-1]
    some = counts > 0
    statistic = 2 * (counts[some] * np.log(counts[some] / expected[some])).sum()
    degrees = torch.tensor((len(counts) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(degrees, torch.tensor(statistic / 2, dtype=torch.float64)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("row", range(3))
def test_draws_follow_the_distribution_that_they_claim(parts, row, temperature):
    head, _, states, output, vocabulary = parts
    scores = TokenScores(output, states[row], row, vocabulary=vocabulary)
    random = np.random.default_rng(row)
    draw = scores.draws(temperature)
    drawn = [draw(random) for _ in range(8_000)]
    dense = dense_logits(head, states)
    claimed = vocabulary.distribution.drawn_log_probabilities(dense, output, temperature)[row]
    assert g_test(drawn, np.exp(claimed)) > 1e-4
    # The test tells distributions apart: candidates alone, without the rest, are another one.
    only = np.where(np.isin(np.arange(VOCAB), scores.ids), dense[row] / temperature, -np.inf)
    with np.errstate(divide="ignore"):
        assert g_test(drawn, np.exp(only - log_sum_exp(only[None])) + 1e-12) < 1e-6


def test_drawing_clusters_by_their_centroids_is_another_distribution(parts):
    """The reference plugin's way: a cluster by the softmax of centroid scores, then a token inside."""
    head, index, states, output, _ = parts
    row, random = 1, np.random.default_rng(0)
    dense = dense_logits(head, states)[row]
    shares = np.exp(output.cluster_scores[row] - log_sum_exp(output.cluster_scores)[row])
    drawn = []
    for cluster in random.choice(index.num_clusters, size=8_000, p=shares / shares.sum()):
        members = index.token_order[cluster][index.token_order[cluster] >= 0]
        inside = np.exp(dense[members] - dense[members].max())
        drawn.append(random.choice(members, p=inside / inside.sum()))
    assert g_test(np.array(drawn), np.exp(dense - log_sum_exp(dense[None])[0])) < 1e-6


def test_a_tiny_temperature_is_greedy(scores):
    best = int(scores.ids[scores.logits.argmax()])
    assert all(scores.draw(np.random.default_rng(seed), 1e-30) == best for seed in range(20))
