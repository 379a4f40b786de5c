"""Beam search against an exhaustive search and against greedy decoding."""

from __future__ import annotations

import numpy as np
import pytest

from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import OptionError
from flashhead_edge.generator import Generator
from tests.tiny_bundle import END_OF_TURN, EOS, VOCAB, write_bundle


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return Generator(Bundle.open(write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")), threads=1)


def logprobs_after(generator, ids):
    output = generator.decoder.for_batch(rows=1, positions=32).read(0, ids).head
    logits = np.empty(VOCAB)
    real = output.candidate_ids[0] >= 0
    logits[output.candidate_ids[0][real]] = output.candidate_logits[0][real]
    return logits - np.log(np.exp(logits).sum())


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_wide_beams_find_the_best_texts(generator, length_penalty):
    prompt = generator.tokenizer.encode("ab")
    first = logprobs_after(generator, prompt)
    texts = []
    for token in range(VOCAB):
        if token in (EOS, END_OF_TURN):
            texts.append((first[token], (token,)))
        else:
            second = logprobs_after(generator, [*prompt, token])
            texts += [(first[token] + second[other], (token, other)) for other in range(VOCAB)]
    best = sorted(texts, key=lambda text: -text[0] / len(text[1]) ** length_penalty)[:5]
    found = generator.beam_search("ab", num_beams=VOCAB, max_new_tokens=2, length_penalty=length_penalty)
    for beam, (logprob, ids) in zip(found, best, strict=False):
        assert beam.token_ids == ids
        assert beam.logprob == pytest.approx(logprob, abs=1e-4)
        assert beam.score == pytest.approx(logprob / len(ids) ** length_penalty, abs=1e-4)
        assert beam.finished == (ids[-1] in (EOS, END_OF_TURN))


def test_one_beam_is_greedy(generator):
    beam = generator.beam_search("hello", num_beams=1, max_new_tokens=12)[0]
    greedy = generator.generate("hello", max_new_tokens=12, logprobs=True)
    assert beam.token_ids == greedy.token_ids
    assert beam.logprob == pytest.approx(sum(greedy.logprobs), abs=1e-4)


def test_beams_are_sorted_and_distinct_and_their_logprobs_are_those_of_their_tokens(generator):
    beams = generator.beam_search("hello", num_beams=4, max_new_tokens=6)
    assert [beam.score for beam in beams] == sorted((beam.score for beam in beams), reverse=True)
    assert len({beam.token_ids for beam in beams}) == 4
    prompt = generator.tokenizer.encode("hello")
    for beam in beams:
        total = sum(
            logprobs_after(generator, [*prompt, *beam.token_ids[:i]])[token] for i, token in enumerate(beam.token_ids)
        )
        assert beam.logprob == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("options", [{"num_beams": 0}, {"max_new_tokens": 0}], ids=str)
def test_options_are_checked(generator, options):
    with pytest.raises(OptionError):
        generator.beam_search("hello", **options)
