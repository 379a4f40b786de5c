from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_heads import dense_logits, random_head, random_index, random_states, table_bias, table_rows

from flashhead_edge import native
from flashhead_edge.context_candidates import ContextCandidates
from flashhead_edge.errors import BundleError
from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.index.distribution import VocabularyDistribution
from flashhead_edge.runtimes.base import HeadOutput, StepOutput
from flashhead_edge.runtimes.reference import ReferenceHead
from flashhead_edge.token_scores import TokenScores, WholeVocabulary

needs_native = pytest.mark.skipif(not native.is_available(), reason="the native library was not compiled")
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


@needs_native
def test_the_native_library_chooses_as_python_does(monkeypatch):
    head = random_head(700, 24, seed=3, bias=True, logit_scale=0.5, logit_softcap=4.0)
    index = random_index(head, 9, always=(3, 5))
    table, states = table_rows(head, index), random_states(80, 24, seed=4)
    facts = {"row_bias": table_bias(head, index), "logit_scale": 0.5, "logit_softcap": 4.0}
    output = StepOutput(ReferenceHead(index, table, 3, **facts).run(states), states)
    tokens, memories = [], []
    for switch in ("1", "0"):
        monkeypatch.setenv(native.SWITCH, switch)
        rows, context = ExactRows(index, table, **facts), ContextCandidates(16)
        assert (rows.scorer is None) == (switch == "0")
        tokens.append([context.best(output, row, rows) for row in range(80)])
        memories.append(context.ids)
    assert tokens[0] == tokens[1]
    assert tokens[0] != output.head.token_ids.tolist()
    np.testing.assert_array_equal(*memories)


@pytest.mark.parametrize("switch", ["0", pytest.param("1", marks=needs_native)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(monkeypatch, switch, value):
    monkeypatch.setenv(native.SWITCH, switch)
    output = StepOutput(ReferenceHead(INDEX, ROWS, 2).run(STATES), STATES)
    output.head.candidate_logits[0, 2] = value
    with pytest.raises(BundleError, match="not finite"):
        ContextCandidates(4).best(output, 0, ExactRows(INDEX, ROWS))
