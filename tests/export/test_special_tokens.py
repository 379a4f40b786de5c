"""Which tokens mean beginning, end and control."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import random_rows, write_gguf
from tiny_models import BOS, EOS, PAD, TURN_END, TURN_START, UNK

from flashhead_edge.errors import SourceError
from flashhead_edge.export.sources import resolve_source
from flashhead_edge.export.special_tokens import SpecialTokens, special_token_ids

NAMED = (PAD, BOS, EOS, UNK, TURN_START, TURN_END)


@pytest.fixture
def folder(tiny_folder: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def change(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**content, **values}))


def tokens_of(path: Path) -> SpecialTokens:
    return special_token_ids(resolve_source(str(path)))


def test_folder(folder: Path) -> None:
    tokens = tokens_of(folder)
    assert tokens.bos == (BOS,)
    assert tokens.eos == (EOS, TURN_END)  # the end of a turn is an end, though no config says so
    assert tokens.control == NAMED  # without <unused0> and <unused1>


def test_gguf(tmp_path: Path) -> None:
    assert tokens_of(write_gguf(tmp_path / "m.gguf", {"token_embd.weight": random_rows()})) == SpecialTokens(
        (BOS,), (EOS, TURN_END), NAMED
    )


def test_ends_are_those_of_config_and_generation_config(folder: Path) -> None:
    change(folder / "config.json", eos_token_id=40)
    change(folder / "generation_config.json", eos_token_id=[41, 42])
    assert tokens_of(folder).eos == (EOS, TURN_END, 40, 41, 42)


def test_neither_beginning_nor_end(folder: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        change(folder / name, bos_token_id=None, eos_token_id=None)
    change(folder / "tokenizer_config.json", bos_token=None, eos_token=None)
    tokens = tokens_of(folder)
    assert tokens.bos == ()
    assert tokens.eos == (TURN_END,)


def test_end_named_by_the_tokenizer_alone(folder: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        change(folder / name, eos_token_id=None)
    change(folder / "tokenizer_config.json", eos_token={"content": "<unk>", "special": True})
    assert tokens_of(folder).eos == (UNK, TURN_END)


def test_end_written_in_the_nested_config(tiny_folder: Callable[..., Path]) -> None:
    assert tokens_of(tiny_folder("gemma3")).eos == (EOS, TURN_END)


def test_special_tokens_of_older_tokenizers(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    change(
        folder / "tokenizer_config.json",
        added_tokens_decoder={"7": {"content": "<tool>", "special": True}, "8": {"content": "x", "special": False}},
    )
    assert tokens_of(folder).control == (7,)


def test_damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(SourceError, match=r"tokenizer.json cannot be read"):
        tokens_of(folder)
