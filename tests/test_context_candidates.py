from __future__ import annotations

import numpy as np
import pytest
from tiny_heads import dense_logits, random_head, random_index, random_states, table_rows

from flashhead_edge.context_candidates import ContextCandidates
from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.index.distribution import VocabularyDistribution
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
