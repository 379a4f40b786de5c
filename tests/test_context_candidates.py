from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_heads import dense_logits, random_head, random_index, random_states, table_rows

from flashhead_edge.context_candidates import ContextCandidates
from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.index.distribution import VocabularyDistribution
from flashhead_edge.runtimes.base import HeadOutput, StepOutput
from flashhead_edge.runtimes.reference import ReferenceHead
from flashhead_edge.token_scores import TokenScores, WholeVocabulary

HEAD = random_head(80, 16)
INDEX = random_index(HEAD, 4)
ROWS = table_rows(HEAD, INDEX)
VOCABULARY = WholeVocabulary(ExactRows(INDEX, ROWS), VocabularyDistribution(INDEX))
STATES = random_states(6, 16)


def scores(row):
    return TokenScores(ReferenceHead(INDEX, ROWS, 2).run(STATES), STATES[row], row, vocabulary=VOCABULARY)


def likeliest(row, count):
    found = scores(row)
    return set(found.ids[np.argsort(-found.logits)[:count]].tolist())


@pytest.mark.parametrize("positions", [1, 3])
def test_the_likeliest_tokens_of_the_last_positions_are_scored(positions):
    context = ContextCandidates(positions, per_position=3)
    expected: list[set[int]] = []
    for row in range(6):
        found = scores(row)
        own = set(found.ids.tolist())
        context.process(found, [], [])
        assert set(found.ids.tolist()) == own.union(*expected[-positions:])
        np.testing.assert_allclose(found.logits, dense_logits(HEAD, STATES)[row][found.ids], atol=1e-5)
        order = np.argsort(-found.logits)[:3]
        expected.append(set(found.ids[order].tolist()))
    assert expected[0] == likeliest(0, 3)


def test_fewer_candidates_than_are_remembered():
    context = ContextCandidates(4, per_position=500)
    for row in range(3):
        context.process(scores(row), [], [])


@pytest.mark.parametrize("positions", [1, 3, 40])
def test_plain_greedy_decoding_has_the_same_tokens_and_memory(positions):
    states = random_states(60, 16, seed=8)
    output = StepOutput(ReferenceHead(INDEX, ROWS, 2).run(states), states)
    slow, fast = ContextCandidates(positions), ContextCandidates(positions)
    changed = 0
    for row in range(60):
        found = TokenScores(output.head, states[row], row, vocabulary=VOCABULARY)
        slow.process(found, [], [])
        expected = int(found.ids[found.logits == found.logits.max()].min())
        assert fast.best(output, row, VOCABULARY.rows) == expected
        np.testing.assert_array_equal(fast.ids, slow.ids)
        changed += expected != output.head.token_ids[row]
    assert changed  # some tokens were found by their context alone


def test_ties_go_to_the_lowest_id():
    order = np.arange(8, dtype=np.int32).reshape(4, 2)
    index = replace(INDEX, token_order=order, centroids=np.zeros((4, 16), np.float32), vocab_size=8)
    for name in ("centroid_bias", "selection_offset", "cluster_variance"):
        index = replace(index, **{name: np.zeros(4, np.float32)})
    rows = ExactRows(index, np.ones((4, 2, 16), np.float32))
    context = ContextCandidates(4, per_position=2)
    state = np.ones((1, 16), np.float32)

    def step(ids):
        head = HeadOutput(
            np.array([min(ids)]), np.array([ids]), np.full((1, 2), 16, np.float32), np.zeros((1, 4), np.float32)
        )
        return StepOutput(head, state)

    assert context.best(step([6, 7]), 0, rows) == 6
    assert context.best(step([2, 3]), 0, rows) == 2
    assert context.best(step([4, 5]), 0, rows) == 2
