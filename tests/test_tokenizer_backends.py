from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashhead_edge import layout
from flashhead_edge.errors import BundleError
from flashhead_edge.export.token_table_builder import write_token_table
from flashhead_edge.tokenizer_backends import TableBackend, WholeBackend, open_backend
from tests.tiny_tokenizers import BYTE_PAIR, ODD, SENTENCES, byte_level, word_level

WORDS = sorted({word for sentence in SENTENCES for word in sentence.split(" ")})
TEXTS = st.lists(st.sampled_from([*WORDS, *ODD, " ", "  "]) | st.text(max_size=8)).map("".join)


@pytest.fixture(scope="module", params=BYTE_PAIR)
def backends(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    BYTE_PAIR[request.param]().save(str(folder / layout.TOKENIZER))
    assert write_token_table(folder)
    return WholeBackend(folder / layout.TOKENIZER), open_backend(folder)


def test_a_table_is_used_where_there_is_one(backends):
    assert isinstance(backends[1], TableBackend)


@given(text=TEXTS, add_special_tokens=st.booleans())
def test_ids_are_those_of_the_whole_tokenizer(backends, text, add_special_tokens):
    whole, part = (backend.encode(text, add_special_tokens=add_special_tokens) for backend in backends)
    assert part == whole


@given(ids=st.lists(st.integers(0, 800)))
def test_texts_are_those_of_the_whole_tokenizer(backends, ids):
    whole, part = (backend.decode(ids) for backend in backends)
    assert part == whole


def test_tokens_are_those_of_the_whole_tokenizer(backends):
    whole, part = backends
    assert part.special_ids == whole.special_ids
    assert [part.token(i) for i in range(1000)] == [whole.token(i) for i in range(1000)]


@pytest.mark.parametrize("text", ["", " ", "<eos>", "<eos><eos>", "\N{REPLACEMENT CHARACTER}"])
def test_texts_of_nearly_nothing(backends, text):
    whole, part = (backend.encode(text, add_special_tokens=True) for backend in backends)
    assert part == whole


def test_no_text_reads_all_tokens(backends):
    """A text of one letter must not bring the vocabulary in."""
    tokenizer = backends[1]._with_tokens(backends[1]._table.occurring(["q"]))
    assert tokenizer.get_vocab_size() < 300


def test_other_tokenizers_are_read_as_a_whole(tmp_path):
    word_level().save(str(tmp_path / layout.TOKENIZER))
    assert not write_token_table(tmp_path)
    backend = open_backend(tmp_path)
    assert isinstance(backend, WholeBackend)
    assert backend.encode("a b", add_special_tokens=True) == [1, 0]


def test_a_table_without_its_tokenizer_is_an_error(tmp_path):
    byte_level().save(str(tmp_path / layout.TOKENIZER))
    write_token_table(tmp_path)
    (tmp_path / layout.TOKENIZER).unlink()
    with pytest.raises(BundleError, match="no tokenizer"):
        open_backend(tmp_path)
