"""Texts side by side are the texts that come one by one."""

from __future__ import annotations

import numpy as np
import pytest

from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import OptionError
from flashhead_edge.generator import Generator
from tests.tiny_bundle import BODY, MAX_POSITIONS, write_bundle

PROMPTS = ["hello", "a much longer prompt than the others", "x", "hi there", "hello", "seven", "last one"]


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return Generator(Bundle.open(write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")), threads=1)


@pytest.mark.parametrize("rows", [1, 2, 3, 32])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "seed": 3, "logprobs": True}], ids=["greedy", "drawn"])
def test_batches_write_what_single_texts_write(generator, rows, options):
    texts = generator.generate_batch(PROMPTS, rows=rows, max_new_tokens=24, **options)
    assert len(texts) == len(PROMPTS)
    for prompt, found in zip(PROMPTS, texts, strict=True):
        alone = generator.generate(prompt, max_new_tokens=24, **options)
        assert found.token_ids == alone.token_ids
        assert (found.text, found.finish_reason, found.prompt_tokens) == (
            alone.text,
            alone.finish_reason,
            alone.prompt_tokens,
        )
        if alone.logprobs:
            np.testing.assert_allclose(found.logprobs, alone.logprobs, atol=1e-4)


def test_texts_that_end_make_room_for_others(generator, monkeypatch):
    """Texts end at different places: every other one is stopped by a string of its own text."""
    alone = [generator.generate(prompt, max_new_tokens=20).text for prompt in PROMPTS]
    stop = tuple({text[3:6] for text in alone[::2] if len(text) > 6})
    expected = [generator.generate(prompt, max_new_tokens=20, stop=stop).token_ids for prompt in PROMPTS]
    assert len({len(ids) for ids in expected}) > 1
    sizes = []
    for_batch = type(generator.decoder).for_batch

    def spied(self, **sizes_of_batch):
        batch = for_batch(self, **sizes_of_batch)
        step = batch.step
        batch.step = lambda ids, **options: sizes.append(len(ids)) or step(ids, **options)
        return batch

    monkeypatch.setattr(type(generator.decoder), "for_batch", spied)
    found = generator.generate_batch(PROMPTS, rows=3, max_new_tokens=20, stop=stop)
    assert [text.token_ids for text in found] == expected
    assert max(sizes) == 3
    assert sizes.count(3) > len(sizes) // 2  # full as long as texts wait


def test_rows_can_be_rearranged(generator):
    batch = generator.decoder.for_batch(rows=3, positions=40)
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
    for row, prompt in enumerate(prompts):
        batch.read(row, prompt)
    batch.keep([2, 0, 0])
    output = batch.step([1, 2, 3])
    for row, (source, token) in enumerate([(2, 1), (0, 2), (0, 3)]):
        expected = generator.decoder.for_batch(rows=1, positions=40).read(0, [*prompts[source], token])
        np.testing.assert_allclose(output.head.candidate_logits[row], expected.head.candidate_logits[0], atol=1e-5)


def test_no_prompt_is_no_text(generator):
    assert generator.generate_batch([]) == []


@pytest.mark.parametrize(
    "options", [{"rows": 0}, {"num_drafts": 2}, {"max_new_tokens": MAX_POSITIONS}, {"allowed_ids": (100_000,)}], ids=str
)
def test_options_are_checked(generator, options):
    with pytest.raises(OptionError):
        generator.generate_batch(["hello"], **options)


def test_a_text_longer_than_its_row_is_refused(generator):
    batch = generator.decoder.for_batch(rows=1, positions=4)
    with pytest.raises(OptionError, match="row"):
        batch.read(0, [1, 2, 3, 4, 5])
    with pytest.raises(OptionError, match=str(BODY.max_positions)):
        generator.decoder.for_batch(rows=1, positions=BODY.max_positions + 1)
