"""Constraints: texts are always valid, and those of the dense head under the same constraint."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_heads import dense_logits, random_head, random_states, table_rows

from flashhead_edge.bundle import Bundle
from flashhead_edge.constraints import Constraint
from flashhead_edge.errors import OptionError
from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.generator import Generator
from flashhead_edge.index.build import IndexOptions, build_index
from flashhead_edge.index.distribution import VocabularyDistribution, log_sum_exp
from flashhead_edge.runtimes.reference import ReferenceHead
from flashhead_edge.token_scores import TokenScores, WholeVocabulary
from tests.tiny_bundle import write_bundle

pytest.importorskip("llguidance")

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}, "c": {"enum": ["red", "blue"]}},
    "required": ["n", "c"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


@pytest.fixture(scope="module")
def generators(bundle):
    return Generator(bundle, threads=1), Generator(bundle, head="dense", threads=1)


SAMPLINGS = [{}, {"temperature": 1.5, "seed": 1}, {"temperature": 1.0, "top_p": 0.8, "seed": 2, "num_drafts": 3}]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "drawn", "nucleus and drafts"])
@pytest.mark.parametrize("pattern", ["[0-9]{3}-[a-z]{2,4}", "(ab|cd)+e", "x", "é{2}ß?", "[A-Z][a-z]* is [0-9]+\\."])
def test_texts_match_the_expression(generators, pattern, sampling):
    for prompt in ("hello", "1 2 3", "zz"):
        ours, theirs = (part.generate(prompt, max_new_tokens=60, regex=pattern, **sampling) for part in generators)
        assert ours.token_ids == theirs.token_ids
        if ours.finish_reason == "stop":
            assert re.fullmatch(pattern, ours.text)
        else:
            assert pattern.endswith(("+e", "*", "\\."))  # may go on and on


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.sampled_from(["a", "[bc]", "[0-9]{2}", "(x|yz)", "d?", "(ef){1,2}", "\\.", " "]), min_size=1, max_size=6
    ),
    seed=st.integers(0, 1000),
)
def test_random_expressions(generators, parts, seed):
    pattern = "".join(parts)
    result = generators[0].generate("q", max_new_tokens=60, temperature=2.0, seed=seed, regex=pattern)
    assert result.finish_reason == "stop"
    assert re.fullmatch(pattern, result.text)


@pytest.mark.parametrize("seed", range(6))
def test_json_follows_the_schema(generators, seed):
    result = generators[0].generate("give", max_new_tokens=120, temperature=1.0, seed=seed, json_schema=SCHEMA)
    if result.finish_reason == "stop":  # white space may go on and on
        value = json.loads(result.text)
        assert set(value) == {"n", "c"}
        assert 0 <= value["n"] <= 9
        assert value["c"] in ("red", "blue")


def test_choices_and_grammars(generators):
    texts = ["yes", "no", "may.be", "no way"]
    for seed in range(8):
        result = generators[0].generate("?", temperature=2.0, seed=seed, choice=texts)
        assert result.text in texts
        assert result.finish_reason == "stop"
    grammar = 'start: "(" start ")" | "x"\n'
    result = generators[0].generate("?", max_new_tokens=80, temperature=1.0, seed=3, grammar=grammar)
    if result.finish_reason == "stop":
        assert re.fullmatch(r"\(*x\)*", result.text)
        assert result.text.count("(") == result.text.count(")")


def test_batches_follow_it_too(generators):
    prompts = ["a", "bb", "ccc", "dddd"]
    options = {"max_new_tokens": 20, "regex": "[0-9]{2,5}!", "temperature": 1.0, "seed": 0}
    texts = generators[0].generate_batch(prompts, rows=2, **options)
    for prompt, text in zip(prompts, texts, strict=True):
        assert text.token_ids == generators[0].generate(prompt, **options).token_ids
        assert re.fullmatch("[0-9]{2,5}!", text.text)


def test_penalties_and_logprobs_go_with_it(generators):
    result = generators[0].generate("a", choice=["left", "right"], frequency_penalty=1.0, logprobs=True)
    assert result.text in ("left", "right")
    assert len(result.logprobs) == len(result.token_ids)
    assert max(result.logprobs) <= 0


@pytest.mark.parametrize(
    "options",
    [
        {"regex": "(unclosed"},
        {"json_schema": "{not json"},
        {"json_schema": {"type": "nonsense"}},
        {"choice": []},
        {"choice": [""]},
        {"grammar": "this is : no grammar ->"},
        {"regex": "a", "choice": ["b"]},
        {"regex": "a", "allowed_ids": (5,)},
    ],
    ids=str,
)
def test_what_cannot_be_followed_is_an_error(generators, options):
    with pytest.raises(OptionError):
        generators[0].generate("a", max_new_tokens=5, **options)


def test_kinds_keep_their_source():
    assert Constraint.json_schema(SCHEMA) == Constraint.json_schema(json.dumps(SCHEMA))
    assert Constraint.regex("a").kind == "regex"


class TestMasks:
    """Masks on a head whose clusters are mostly closed."""

    HEAD = random_head(400, 16, seed=3)
    OPTIONS = IndexOptions(cluster_size=8, always_scored=8)
    INDEX = build_index(HEAD, random_states(1500, 16, seed=9) / 2, OPTIONS, always=(0, 1), num_probes=4)
    ROWS = table_rows(HEAD, INDEX)
    VOCABULARY = WholeVocabulary(ExactRows(INDEX, ROWS), VocabularyDistribution(INDEX))
    STATES = random_states(40, 16) / 2
    OUTPUT = ReferenceHead(INDEX, ROWS, 4).run(STATES)
    DENSE = dense_logits(HEAD, STATES)

    def scores(self, row):
        return TokenScores(self.OUTPUT, self.STATES[row], row, vocabulary=self.VOCABULARY)

    def test_the_best_allowed_token_is_among_the_promising(self):
        random = np.random.default_rng(0)
        right = []
        for row in range(40):
            allowed = random.random(400) < 0.3
            scores = self.scores(row)
            scores.mask(allowed)
            assert scores.score_promising() < allowed.sum()
            best = np.where(allowed, self.DENSE[row], -np.inf).argmax()
            right.append(scores.ids[scores.logits.argmax()] == best)
            assert not np.isfinite(scores.logits[~allowed[scores.ids]]).any()
        assert np.mean(right) > 0.9

    def test_all_that_may_come_can_be_scored(self):
        allowed = np.random.default_rng(1).random(400) < 0.3
        for row in range(40):
            scores = self.scores(row)
            scores.mask(allowed)
            scores.score_all()
            assert sorted(scores.ids) == np.flatnonzero(allowed).tolist()
            np.testing.assert_allclose(scores.logits, self.DENSE[row][scores.ids], atol=1e-5)
            assert not scores.has_rest

    def test_draws_are_from_the_allowed_tokens_in_proportion(self):
        allowed = np.arange(400) % 3 == 0
        scores = self.scores(2)
        scores.mask(allowed)
        draw, random = scores.draws(1.0), np.random.default_rng(0)
        drawn = np.bincount([draw(random) for _ in range(6000)], minlength=400) / 6000
        expected = np.where(allowed, self.DENSE[2], -np.inf)
        expected = np.exp(expected - log_sum_exp(expected[None])[0])
        assert drawn[~allowed].sum() == 0
        by_chance = np.sqrt(2 * expected * (1 - expected) / np.pi / 6000).sum() / 2
        assert np.abs(drawn - expected).sum() / 2 < 1.3 * by_chance + 0.01

    def test_what_is_scored_later_obeys_the_mask(self):
        scores = self.scores(0)
        allowed = np.zeros(400, bool)
        allowed[::2] = True
        scores.mask(allowed)
        scores.include(np.array([5, 6]))
        places = scores.places(np.array([5, 6]))
        assert np.isneginf(scores.logits[places[0]])
        assert scores.logits[places[1]] == pytest.approx(self.DENSE[0][6], abs=1e-5)
