"""Folders as they are found: other names, other layouts, damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flashhead_edge.errors import SourceError, WeightError
from flashhead_edge.export.heads import read_embedding, read_head
from flashhead_edge.export.sources import resolve_source

EMBEDDING = "model.embed_tokens.weight"
TinyFolder = Callable[..., Path]


@pytest.fixture
def copied(tiny_folder: TinyFolder, tmp_path: Path) -> Callable[..., Path]:
    """A copy of a tiny model's folder, to be changed."""

    def copy(kind: str = "llama", **options: Any) -> Path:
        return Path(shutil.copytree(tiny_folder(kind, **options), tmp_path / "copy"))

    return copy


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(values)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def head_of(folder: Path) -> Any:
    return read_head(resolve_source(str(folder)))


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."], ids=["legacy", "current"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_both_layouts_of_multimodal_checkpoints(prefix: str, tied: bool, copied: Callable[..., Path]) -> None:
    folder = copied("gemma3", tied=tied)
    before = head_of(folder)

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            if name.endswith("embed_tokens.weight"):
                tensors[prefix + "embed_tokens.weight"] = tensors.pop(name)
            elif name.endswith("lm_head.weight"):
                legacy = "language_model.lm_head.weight" if prefix.startswith("language") else "lm_head.weight"
                tensors[legacy] = tensors.pop(name)

    change_weights(folder, rename)
    after = head_of(folder)
    np.testing.assert_array_equal(before.rows, after.rows)
    assert after.tied is tied


def test_gpt2_without_prefix(copied: Callable[..., Path]) -> None:
    folder = copied("gpt2")
    rows = head_of(folder).rows
    change_weights(folder, lambda t: t.update({n.removeprefix("transformer."): t.pop(n) for n in list(t)}))
    np.testing.assert_array_equal(head_of(folder).rows, rows)


def test_text_config_without_model_type_is_known_by_its_wrapper(copied: Callable[..., Path]) -> None:
    folder = copied("gemma3")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change_config(folder, text_config={key: value for key, value in text.items() if key != "model_type"})
    assert resolve_source(str(folder)).model_type == "gemma3_text"


def test_head_stored_beside_an_equal_embedding_is_tied(copied: Callable[..., Path]) -> None:
    folder = copied("llama", tied=True)
    change_weights(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING].clone()}))
    assert head_of(folder).tied


def test_head_that_differs_from_the_embedding_is_untied_whatever_the_config_says(copied: Callable[..., Path]) -> None:
    folder = copied("llama", tied=True)
    change_weights(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING] + 1}))
    head = head_of(folder)
    assert not head.tied
    np.testing.assert_allclose(head.rows, read_embedding(resolve_source(str(folder))) + 1)


def test_tied_where_the_config_does_not_say(copied: Callable[..., Path]) -> None:
    folder = copied("llama", tied=True)
    change_config(folder, tie_word_embeddings=...)
    assert head_of(folder).tied


def test_only_the_head_is_stored(copied: Callable[..., Path]) -> None:
    folder = copied("llama", tied=True)
    rows = head_of(folder).rows
    change_weights(folder, lambda tensors: tensors.update({"lm_head.weight": tensors.pop(EMBEDDING)}))
    assert head_of(folder).tied
    np.testing.assert_array_equal(read_embedding(resolve_source(str(folder))), rows)


def test_vocabulary_padded_beyond_the_tokenizer_is_kept(tiny_folder: TinyFolder) -> None:
    head = head_of(tiny_folder("llama"))
    tokens = json.loads((tiny_folder("llama") / "tokenizer.json").read_text())["model"]["vocab"]
    assert head.vocab_size == 509 > len(tokens)


def test_other_safetensors_files_beside_the_model_are_ignored(copied: Callable[..., Path]) -> None:
    folder = copied("llama")
    rows = head_of(folder).rows
    save_file({EMBEDDING: torch.zeros(3, 3)}, folder / "consolidated.safetensors")
    np.testing.assert_array_equal(head_of(folder).rows, rows)


def test_declared_untied_but_no_head(copied: Callable[..., Path]) -> None:
    folder = copied("llama", tied=True)
    change_config(folder, tie_word_embeddings=False)
    with pytest.raises(SourceError, match=r"head is missing(.|\n)*embed_tokens(.|\n)*set tie_word_embeddings to true"):
        head_of(folder)


def test_neither_embedding_nor_head(copied: Callable[..., Path]) -> None:
    folder = copied("llama", tied=True)
    change_weights(folder, lambda tensors: tensors.update({"model.tok_embeddings.weight": tensors.pop(EMBEDDING)}))
    with pytest.raises(SourceError, match=r"not where they should be(.|\n)*tok_embeddings(.|\n)*expected: model.embed"):
        head_of(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite_are_named(value: float, copied: Callable[..., Path]) -> None:
    folder = copied("llama", tied=True)

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[EMBEDDING][[7, 300], 5] = value

    change_weights(folder, spoil)
    with pytest.raises(WeightError, match="2 of 509 rows: 7, 300"):
        head_of(folder)
    with pytest.raises(WeightError, match="7, 300"):
        read_embedding(resolve_source(str(folder)))


@pytest.mark.parametrize(("key", "value"), [("vocab_size", 512), ("hidden_size", 32)])
def test_shape_other_than_declared(key: str, value: int, copied: Callable[..., Path]) -> None:
    folder = copied("llama")
    change_config(folder, **{key: value})
    with pytest.raises(WeightError, match=rf"\[509, 64\](.|\n)*{value}"):
        head_of(folder)


def test_quantized_rows(copied: Callable[..., Path]) -> None:
    folder = copied("llama", tied=True)
    change_weights(folder, lambda tensors: tensors.update({EMBEDDING: tensors[EMBEDDING].to(torch.int8)}))
    with pytest.raises(WeightError, match=r"quantized(.|\n)*I8(.|\n)*unquantized checkpoint"):
        head_of(folder)


def test_scale_of_zero(copied: Callable[..., Path]) -> None:
    folder = copied("granite")
    change_config(folder, logits_scaling=0.0)
    with pytest.raises(WeightError, match="logits_scaling"):
        head_of(folder)


def test_setting_that_is_no_number(copied: Callable[..., Path]) -> None:
    folder = copied("cohere")
    change_config(folder, logit_scale="big")
    with pytest.raises(SourceError, match="'big'"):
        head_of(folder)


def test_bias_of_another_length(copied: Callable[..., Path]) -> None:
    folder = copied("phi")
    change_weights(folder, lambda tensors: tensors.update({"lm_head.bias": torch.zeros(3)}))
    with pytest.raises(WeightError, match="bias"):
        head_of(folder)


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.99])
def test_truncated_file(kept: float, copied: Callable[..., Path]) -> None:
    folder = copied("llama")
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = int(len(content) * kept) if isinstance(kept, float) else kept
    file.write_bytes(content[:length])
    with pytest.raises(SourceError, match=rf"model.safetensors is damaged or truncated(.|\n)*{length} bytes"):
        resolve_source(str(folder))


def test_missing_shard(copied: Callable[..., Path]) -> None:
    folder = copied("llama", shard_size="40KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(SourceError, match=rf"1 of \d+ missing: {shard.name}"):
        resolve_source(str(folder))


def test_index_that_points_outside_the_folder(copied: Callable[..., Path]) -> None:
    folder = copied("llama", shard_size="40KB")
    index = {"weight_map": {EMBEDDING: "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match="outside"):
        resolve_source(str(folder))
