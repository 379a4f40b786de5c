"""Drafted tokens: guesses by hand, and that texts are the same with and without them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashhead_edge.bundle import Bundle
from flashhead_edge.drafts import DraftModel, PromptLookup, computes_alike
from flashhead_edge.errors import OptionError
from flashhead_edge.generator import Generator
from tests.tiny_bundle import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


@pytest.fixture(scope="module")
def generator(bundle):
    return Generator(bundle, threads=1)


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("the cat and the", 4, " cat"),
        ("aXbYaZbYa", 3, "ZbY"),
        ("abcabc", 9, "abc"),
        ("abcdef", 4, ""),
        ("a", 4, ""),
        ("aa", 1, "a"),
    ],
)
def test_prompt_lookup_goes_on_as_the_text_did(text, count, expected):
    found = PromptLookup(longest=3).draft([ord(c) for c in text], count)
    assert "".join(map(chr, found)) == expected


@given(ids=st.lists(st.integers(0, 3), max_size=30), count=st.integers(1, 6), longest=st.integers(1, 4))
def test_prompt_lookup_quotes_the_text(ids, count, longest):
    found = PromptLookup(longest).draft(ids, count)
    assert len(found) <= count
    if found:
        quotes = [ids[i : i + 1 + len(found)] for i in range(len(ids))]
        assert [ids[-1], *found] in quotes


def test_prompt_lookup_needs_a_token():
    with pytest.raises(OptionError):
        PromptLookup(0)


@pytest.mark.parametrize("drafter", ["lookup", "the model itself"])
@pytest.mark.parametrize("num_drafts", [1, 3, 7])
@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 1.0, "seed": 5}, {"temperature": 1.3, "top_p": 0.9, "seed": 6, "frequency_penalty": 0.5}],
    ids=["greedy", "drawn", "filtered"],
)
def test_texts_are_the_same_with_and_without_drafts(bundle, generator, drafter, num_drafts, options):
    drafted = Generator(bundle, threads=1, draft=generator if drafter != "lookup" else None)
    for prompt in ("abcabcabcab", "hello hello", "x"):
        plain = Generator(bundle, threads=1).generate(prompt, max_new_tokens=40, **options)
        found = drafted.generate(prompt, max_new_tokens=40, num_drafts=num_drafts, logprobs=True, **options)
        assert found.token_ids == plain.token_ids
        assert found.text == plain.text
        assert found.finish_reason == plain.finish_reason
        assert len(found.logprobs) == len(found.token_ids)
        assert 0 <= found.accepted_drafts <= found.drafted_tokens
        if drafter != "lookup" and not options:  # a model guesses all of its own greedy tokens
            assert found.accepted_drafts == found.drafted_tokens > 0


def test_a_draft_model_reads_only_what_is_new(generator):
    drafter = DraftModel(generator, generator.bundle)
    fed = []
    step = generator.decoder.step
    generator.decoder.step = lambda ids, **options: fed.append(ids.shape[1]) or step(ids, **options)
    try:
        first = drafter.draft([5, 6, 7, 8], 3)
        assert fed == [4, 1, 1]
        fed.clear()
        second = drafter.draft([5, 6, 7, 8, *first[:2], 9], 2)
        assert fed == [1, 1]
        fed.clear()
        assert drafter.draft([5, 6, 7, 8, *first[:2], 9], 2) == second
        assert fed == [1, 1]
    finally:
        generator.decoder.step = step
    expected = Generator(generator.bundle, threads=1).decoder.step(np.array([[5, 6, 7, 8]])).head.token_ids[0]
    assert first[0] == expected


def test_another_tokenizer_is_refused(bundle, generator, tmp_path):
    other = Bundle.open(write_bundle(tmp_path / "other"))
    other.manifest.files["tokenizer.json"] = other.manifest.files["decode.onnx"]
    draft = Generator(bundle, threads=1)
    draft.bundle = other
    with pytest.raises(OptionError, match="tokenizer"):
        Generator(bundle, threads=1, draft=draft)


class Alike:
    """A decoder whose states depend on the token alone, or also on how many come together."""

    def __init__(self, decoder, *, uneven=0.0, precision="int4"):
        self._decoder, self._uneven = decoder, uneven
        self.body = replace(decoder.body, precision=precision)

    def __getattr__(self, name):
        return getattr(self._decoder, name)

    def step(self, ids, *, scored=1, greedy=False):
        output = self._decoder.step(ids, scored=scored, greedy=greedy)
        states = ids[0, -scored:, None] * np.ones((1, 32), np.float32) + np.float32(self._uneven * (ids.shape[1] == 1))
        return output._replace(hidden_states=states)


@pytest.mark.parametrize(
    ("uneven", "precision", "level"), [(0.0, "int4", None), (1e-6, "int4", "WARNING"), (1e-6, "fp32", "INFO")]
)
def test_a_decoder_that_computes_unlike_is_found_and_said_once(bundle, caplog, uneven, precision, level):
    caplog.set_level("INFO", logger="flashhead_edge")
    generator = Generator(bundle, threads=1)
    generator.decoder = Alike(generator.decoder, uneven=uneven, precision=precision)
    assert computes_alike(generator.decoder) == (not uneven)
    assert generator.decoder.position == 0
    for _ in range(2):
        generator.generate("ab", max_new_tokens=2, num_drafts=1)
    said = [record.levelname for record in caplog.records if "may part" in record.message]
    assert said == ([] if level is None else [level])
