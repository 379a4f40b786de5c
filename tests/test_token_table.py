from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from flashhead_edge.errors import BundleError
from flashhead_edge.export.token_table_builder import build_token_table
from flashhead_edge.token_table import RollingHash, TokenTable
from tests.tiny_tokenizers import BYTE_PAIR, byte_level

BASE = 0x9E3779B97F4A7C15


@given(data=st.binary(min_size=1, max_size=300), length=st.integers(1, 20))
def test_hashes_say_which_parts_are_equal(data, length):
    found = RollingHash(np.frombuffer(data, np.uint8), BASE).parts(
        slice(max(0, len(data) - length + 1)), slice(length, None)
    )
    parts = [data[i : i + length] for i in range(len(data) - length + 1)]
    by_part = dict(zip(parts, found.tolist(), strict=True))
    assert [by_part[part] for part in parts] == found.tolist()
    assert len(set(by_part.values())) == len(by_part)


@pytest.fixture(scope="module", params=BYTE_PAIR)
def tokenizer_and_table(request, tmp_path_factory):
    tokenizer = BYTE_PAIR[request.param]()
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    return tokenizer, build_token_table(file)


def test_tokens_are_those_of_the_tokenizer(tokenizer_and_table):
    tokenizer, table = tokenizer_and_table
    ids = range(-1, tokenizer.get_vocab_size() + 2)
    assert [table.token(i) for i in ids] == [tokenizer.id_to_token(i) if i >= 0 else None for i in ids]


@given(data=st.data())
def test_tokens_that_occur(tokenizer_and_table, data):
    tokenizer, table = tokenizer_and_table
    vocab = tokenizer.get_vocab()
    texts = data.draw(st.lists(st.lists(st.sampled_from(sorted(vocab)) | st.text(max_size=3)).map("".join)))
    expected = sorted(token_id for token, token_id in vocab.items() if any(token in text for text in texts))
    assert table.occurring(texts) == expected


@given(data=st.data())
def test_merges_among_some_tokens(tokenizer_and_table, data):
    tokenizer, table = tokenizer_and_table
    model = json.loads(tokenizer.to_str())["model"]
    chosen = data.draw(st.sets(st.sampled_from(sorted(model["vocab"]))))
    expected = [tuple(m) for m in model["merges"] if {m[0], m[1], m[0] + m[1]} <= chosen]
    assert table.merges(sorted(model["vocab"][token] for token in chosen)) == expected


def test_two_ways_to_make_a_token_stay_in_their_order(tmp_path):
    file = tmp_path / "tokenizer.json"
    vocab = {token: index for index, token in enumerate(["a", "aa", "aaa", "b"])}
    merges = [["a", "a"], ["aa", "a"], ["a", "aa"]]
    content = json.loads(byte_level().to_str())
    file.write_text(
        json.dumps({**content, "added_tokens": [], "model": {"type": "BPE", "vocab": vocab, "merges": merges}})
    )
    assert build_token_table(file).merges([0, 1, 2]) == [tuple(merge) for merge in merges]


@pytest.fixture
def saved(tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    byte_level().save(str(tokenizer))
    table = build_token_table(tokenizer)
    table.save(tmp_path / "table", tokenizer)
    return tmp_path / "table", tokenizer


def test_what_is_written_is_read(saved):
    table, again = build_token_table(saved[1]), TokenTable.open(*saved)
    assert again.rules == table.rules
    for name in TokenTable.ARRAYS:
        written, read = getattr(table, name), getattr(again, name)
        assert written.dtype == read.dtype
        assert np.array_equal(written, read)


def test_equal_tables_are_equal_files(saved, tmp_path):
    build_token_table(saved[1]).save(tmp_path / "again", saved[1])
    assert (tmp_path / "again").read_bytes() == saved[0].read_bytes()


def test_another_tokenizer_is_an_error(saved):
    saved[1].write_text(saved[1].read_text() + " ")
    with pytest.raises(BundleError, match="another"):
        TokenTable.open(*saved)


@pytest.mark.parametrize("metadata", [None, {"tokenizer": "{"}, {"tokenizer": '{"base": 3}'}])
def test_a_file_without_a_table_is_an_error(saved, metadata):
    save_file({"text": np.zeros(3, np.uint8)}, saved[0], metadata=metadata)
    with pytest.raises(BundleError, match="no token table"):
        TokenTable.open(*saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: {"text": table.text[1:]},
        lambda table: {"hashes": table.hashes[1:]},
        lambda table: {"merge_splits": table.merge_splits[1:]},
        lambda table: {"merge_counts": table.merge_counts[1:]},
        lambda table: {"added_flags": table.added_flags[1:]},
        lambda table: {"order": table.order - 1},
        lambda table: {"added_ids": table.added_ids + len(table.lengths)},
    ],
)
def test_tensors_that_do_not_fit_each_other_are_an_error(saved, change):
    table = build_token_table(saved[1])
    replace(table, **change(table)).save(*saved)
    with pytest.raises(BundleError, match="do not fit"):
        TokenTable.open(*saved)


def test_a_damaged_file_is_an_error(saved):
    saved[0].write_bytes(saved[0].read_bytes()[:-5])
    with pytest.raises(BundleError, match="cannot be read"):
        TokenTable.open(*saved)
