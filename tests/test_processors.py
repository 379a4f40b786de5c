"""Logit processors on a two-stage head's scores, against Transformers' on the dense logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_heads import dense_logits, random_head, random_index, random_states, table_rows

from flashhead_edge.errors import OptionError
from flashhead_edge.exact_rows import ExactRows
from flashhead_edge.index.distribution import VocabularyDistribution, log_sum_exp
from flashhead_edge.processors import logit_processors
from flashhead_edge.runtimes.reference import ReferenceHead
from flashhead_edge.sampling import Sampler, SamplingOptions
from flashhead_edge.token_scores import TokenScores, WholeVocabulary

VOCAB, WIDTH, SIZE = 90, 16, 5
HEAD = random_head(VOCAB, WIDTH, seed=2)
INDEX = random_index(HEAD, SIZE, always=(1,), seed=2)
ROWS = table_rows(HEAD, INDEX)
VOCABULARY = WholeVocabulary(ExactRows(INDEX, ROWS), VocabularyDistribution(INDEX))
STATES = random_states(3, WIDTH, seed=6)
DENSE = dense_logits(HEAD, STATES)
ENDS = (1, 40)

WORDS = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=3).map(tuple)
TOKENS = st.lists(st.integers(0, VOCAB - 1), max_size=12)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "repetition_penalty": st.floats(0.5, 3.0),
        "presence_penalty": st.floats(-2.0, 2.0),
        "frequency_penalty": st.floats(-2.0, 2.0),
        "logit_bias": st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-5, 5), min_size=1, max_size=6),
        "allowed_ids": st.lists(st.integers(0, VOCAB - 1), min_size=4, max_size=30, unique=True).map(tuple),
        "bad_words": st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=3).map(tuple), max_size=4).map(
            tuple
        ),
        "min_tokens": st.integers(0, 6),
    },
)


def scores(row=0, probes=3):
    output = ReferenceHead(INDEX, ROWS, probes).run(STATES)
    return TokenScores(output, STATES[row], row, vocabulary=VOCABULARY)


def processed_dense(options, prompt, text, row=0):
    """The same on all logits, as vLLM's sampler goes about it: allowed, bad words, minimum, bias, penalties."""
    torch = pytest.importorskip("torch")
    from transformers.generation import logits_process as hf

    logits = torch.tensor(DENSE[row], dtype=torch.float32)[None]
    if options.allowed_ids is not None:
        rest = torch.ones(VOCAB, dtype=torch.bool)
        rest[list(options.allowed_ids)] = False
        logits = logits.masked_fill(rest, -torch.inf)
    ids = torch.tensor([text], dtype=torch.int64)
    if options.bad_words:
        words = [list(word) for word in dict.fromkeys(options.bad_words)]
        logits = hf.NoBadWordsLogitsProcessor(words, eos_token_id=None)(ids, logits)
    if options.min_tokens:
        process = hf.MinNewTokensLengthLogitsProcessor(0, options.min_tokens, list(ENDS), device="cpu")
        logits = process(ids, logits)
    for token, bias in options.logit_bias.items():
        logits[0, token] += bias
    if options.repetition_penalty != 1.0 and len(prompt) + len(text):
        both = torch.tensor([[*prompt, *text]], dtype=torch.int64)
        logits = hf.RepetitionPenaltyLogitsProcessor(options.repetition_penalty)(both, logits)
    for token in set(text):
        logits[0, token] -= options.frequency_penalty * text.count(token) + options.presence_penalty
    return logits[0].numpy()


@settings(deadline=None, max_examples=150)
@given(keywords=OPTIONS, prompt=TOKENS, text=TOKENS, probes=st.sampled_from([2, 18]))
def test_exact_scores_are_those_of_the_dense_head_processed_alike(keywords, prompt, text, probes):
    options = SamplingOptions(**keywords)
    found = scores(probes=probes)
    for processor in logit_processors(options, ENDS):
        processor.process(found, prompt, text)
    expected = processed_dense(options, prompt, text)
    np.testing.assert_allclose(found.logits, expected[found.ids], atol=1e-4)
    assert len(set(found.ids.tolist())) == len(found.ids)
    if not found.has_rest:
        outside = np.setdiff1d(np.arange(VOCAB), found.ids)
        assert np.isneginf(expected[outside]).all()
    else:  # whatever a processor changed is scored exactly
        assert np.isin(np.flatnonzero(np.abs(expected - DENSE[0]) > 1e-4), found.ids).all()


@settings(deadline=None, max_examples=60)
@given(
    keywords=OPTIONS,
    text=TOKENS,
    temperature=st.floats(0.3, 2.0),
    top_k=st.sampled_from([0, 1, 5, 20]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    min_p=st.sampled_from([0.0, 0.2]),
    typical_p=st.sampled_from([1.0, 0.8]),
)
def test_kept_tokens_have_the_dense_probabilities_when_all_clusters_are_open(
    keywords, text, temperature, top_k, top_p, min_p, typical_p
):
    torch = pytest.importorskip("torch")
    from transformers.generation import logits_process as hf

    options = SamplingOptions(temperature, top_k, top_p, min_p, 0, typical_p, **keywords)
    expected = processed_dense(options, [], text)
    if np.isneginf(expected).all() or not options.filters:
        return
    found = scores(probes=INDEX.num_clusters)
    sampler = Sampler(options, end_ids=ENDS)
    for processor in sampler._processors:
        processor.process(found, [], text)
    ids, probabilities = sampler._distribution(found)
    warped = torch.tensor(expected)[None] / temperature
    for value, off, warper in (
        (top_k, 0, hf.TopKLogitsWarper),
        (top_p, 1.0, hf.TopPLogitsWarper),
        (min_p, 0.0, hf.MinPLogitsWarper),
        (typical_p, 1.0, hf.TypicalLogitsWarper),
    ):
        if value != off:
            warped = warper(value)(None, warped)
    theirs = warped.softmax(-1)[0].numpy()
    assert sorted(ids.tolist()) == np.flatnonzero(theirs).tolist()
    np.testing.assert_allclose(probabilities, theirs[ids], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.99])
def test_a_nucleus_beyond_the_candidates_opens_clusters(top_p):
    flat = STATES[0] / 3
    output = ReferenceHead(INDEX, ROWS, 1).run(flat[None])
    found = TokenScores(output, flat, vocabulary=VOCABULARY)
    before = len(found.ids)
    ids, probabilities = Sampler(SamplingOptions(1.0, top_p=top_p, seed=0))._distribution(found)
    assert len(found.ids) > before
    dense = dense_logits(HEAD, flat[None])[0]
    softmax = np.exp(dense - log_sum_exp(dense[None]))
    assert softmax[ids].sum() == pytest.approx(top_p, abs=0.15)
    assert probabilities.sum() == pytest.approx(1.0)


def test_when_every_candidate_is_forbidden_another_token_is_found():
    candidates = scores(probes=1).ids.tolist()
    words = tuple((token,) for token in candidates)
    for options in (SamplingOptions(bad_words=words), SamplingOptions(1.0, seed=0, bad_words=words)):
        token = Sampler(options).choose(scores(probes=1))
        assert token not in candidates


def test_greedy_takes_the_best_allowed_token():
    allowed = (3, 50, 77)
    token = Sampler(SamplingOptions(allowed_ids=allowed)).choose(scores(probes=1))
    assert token == allowed[int(DENSE[0][list(allowed)].argmax())]


def test_options_that_forbid_everything_are_an_error():
    options = SamplingOptions(allowed_ids=(3,), bad_words=((3,),))
    with pytest.raises(OptionError, match="no token"):
        Sampler(options).choose(scores())


@pytest.mark.parametrize(
    "fields",
    [
        {"repetition_penalty": 0.0},
        {"presence_penalty": np.nan},
        {"frequency_penalty": np.inf},
        {"logit_bias": {1: np.nan}},
        {"allowed_ids": ()},
        {"bad_words": ((),)},
        {"min_tokens": -1},
        {"temperature": 1.0, "typical_p": 0.0},
        {"typical_p": 0.5},
    ],
    ids=str,
)
def test_options_are_checked(fields):
    with pytest.raises(OptionError):
        SamplingOptions(**fields)
