"""Which tokenizers can be a table, and how its hashes are chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashhead_edge import layout
from flashhead_edge.export.token_table_builder import _order, build_token_table
from flashhead_edge.token_table import RollingHash
from tests.tiny_tokenizers import BYTE_PAIR, byte_level, marked_ends, word_level


def written(folder: Path, content: dict[str, Any] | str) -> Path:
    file = folder / layout.TOKENIZER
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


@pytest.mark.parametrize("name", BYTE_PAIR)
def test_tokenizers_of_byte_pair_encoding_can_be_a_table(name: str, tmp_path: Path) -> None:
    assert build_token_table(written(tmp_path, BYTE_PAIR[name]().to_str())) is not None


@pytest.mark.parametrize("build", [word_level, marked_ends])
def test_other_tokenizers_cannot(build: Callable[[], Any], tmp_path: Path) -> None:
    assert build_token_table(written(tmp_path, build().to_str())) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["model"].update(dropout=0.1),
        lambda content: content["model"]["vocab"].update({"": 5000}),
        lambda content: content["model"]["vocab"].update({"twice": 3}),
        lambda content: content["added_tokens"][0].update(id=5000),
    ],
    ids=["random merges", "an empty token", "two tokens of one id", "an added token of two ids"],
)
def test_nor_can_tokens_that_contradict_each_other(change: Callable[[Any], None], tmp_path: Path) -> None:
    content = json.loads(byte_level().to_str())
    change(content)
    assert build_token_table(written(tmp_path, content)) is None


def test_merges_may_be_texts(tmp_path: Path) -> None:
    content = json.loads(byte_level().to_str())
    pairs = build_token_table(written(tmp_path, content))
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    texts = build_token_table(written(tmp_path, content))
    assert pairs is not None
    assert texts is not None
    assert np.array_equal(pairs.merge_splits, texts.merge_splits)
    assert np.array_equal(pairs.merge_ranks, texts.merge_ranks)


def test_a_base_that_gives_two_tokens_one_hash_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [f"{number:05}".encode() for number in range(2000)]
    joined, lengths = np.frombuffer(b"".join(tokens), np.uint8), np.full(len(tokens), 5)
    first = _order(joined, lengths)
    assert first is not None
    parts = RollingHash.parts
    tried = []

    def narrow_at_first(self: RollingHash, begin: Any, end: Any) -> Any:
        tried.append(self)
        return parts(self, begin, end) & np.uint32(0xFF if len(tried) < 3 else 0xFFFFFFFF)

    monkeypatch.setattr(RollingHash, "parts", narrow_at_first)
    later = _order(joined, lengths)
    assert later is not None
    assert later[0] == first[0] + 4
    monkeypatch.setattr(RollingHash, "parts", lambda self, begin, end: parts(self, begin, end) & np.uint32(0xFF))
    assert _order(joined, lengths) is None
