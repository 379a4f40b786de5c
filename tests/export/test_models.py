"""Loading whole models, and the tokenizer that goes into a bundle."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers.processors
import torch
from tiny_gguf import random_rows, write_gguf, write_llama_gguf
from tiny_models import BOS, CHAT_TEMPLATE, tiny_tokenizer

from flashhead_edge.errors import OptionalDependencyError, SourceError, UnsupportedModelError
from flashhead_edge.export.gguf_transformers import begin_as_the_file_says
from flashhead_edge.export.heads import read_head
from flashhead_edge.export.models import load_model, load_tokenizer, model_folder
from flashhead_edge.export.sources import ModelSource, resolve_source
from flashhead_edge.export.tokenizer_files import save_tokenizer
from flashhead_edge.tokenizer_backends import open_backend

TinyFolder = Callable[..., Path]
TEXT = "The quick brown fox springt über den Hund.\n"
pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def llama_gguf(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSource, torch.nn.Module]:
    path, model = write_llama_gguf(tmp_path_factory.mktemp("gguf") / "llama.gguf")
    return resolve_source(str(path)), model


def logits(model: torch.nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return model(input_ids=torch.arange(1, 12)[None]).logits.numpy()


def test_folder(tiny_folder: TinyFolder) -> None:
    model, tokenizer = load_model(resolve_source(str(tiny_folder("llama", dtype=torch.bfloat16))))
    assert model.dtype == torch.float32
    assert not model.training
    assert tokenizer(TEXT)["input_ids"] == tiny_tokenizer()(TEXT)["input_ids"]


def test_gguf(llama_gguf: tuple[ModelSource, torch.nn.Module], capfd: pytest.CaptureFixture[str]) -> None:
    source, original = llama_gguf
    reader = gguf.GGUFReader
    model, tokenizer = load_model(source)
    np.testing.assert_allclose(logits(model), logits(original), atol=1e-5)
    np.testing.assert_array_equal(read_head(source).rows, model.get_output_embeddings().weight.detach().numpy())
    assert tokenizer(TEXT)["input_ids"] == tiny_tokenizer()(TEXT)["input_ids"]
    assert gguf.GGUFReader is reader
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("wrong", ["$A", "<s> $A"])
@pytest.mark.parametrize("says", [True, False, None])
def test_the_file_says_how_texts_begin(says: bool | None, wrong: str, tmp_path: Path) -> None:
    """Whatever transformers made of it."""
    path, _ = write_llama_gguf(tmp_path / "llama.gguf", add_bos=says)
    source = resolve_source(str(path))
    tokenizer = tiny_tokenizer()
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    processor = tokenizers.processors.TemplateProcessing(
        single=wrong.replace("<s>", bos[0]), pair="$A $B", special_tokens=[bos]
    )
    tokenizer.backend_tokenizer.post_processor = processor
    before = tokenizer(TEXT)["input_ids"]
    begin_as_the_file_says(tokenizer, path)
    plain = [token for token in before if token != BOS]
    expected = before if says is None else [BOS, *plain] if says else plain
    assert tokenizer(TEXT)["input_ids"] == expected
    if says is not None:
        assert load_tokenizer(source)(TEXT)["input_ids"] == expected


def test_model_folder_of_a_folder_is_itself(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    source = resolve_source(str(tiny_folder("llama")))
    assert model_folder(source, tmp_path / "scratch") == source.path
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "not-loaded"])
def test_model_folder_of_a_gguf(llama_gguf: tuple[ModelSource, torch.nn.Module], loaded: bool, tmp_path: Path) -> None:
    source, original = llama_gguf
    folder = model_folder(source, tmp_path / "scratch", loaded=load_model(source) if loaded else None)
    again = resolve_source(str(folder))
    assert again.kind == "folder"
    model, _ = load_model(again)
    np.testing.assert_allclose(logits(model), logits(original), atol=1e-5)
    head = read_head(again)
    assert head.tied
    np.testing.assert_array_equal(head.rows, read_head(source).rows)


def test_gguf_that_transformers_does_not_load(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"token_embd.weight": random_rows()}, architecture="command-r")
    with pytest.raises(UnsupportedModelError, match=r"command-r is not supported(.|\n)*Hugging Face folder"):
        load_model(resolve_source(str(path)))


def test_gguf_without_accelerate(
    llama_gguf: tuple[ModelSource, torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionalDependencyError, match=r"accelerate(.|\n)*flashhead-edge\[export\]"):
        load_model(llama_gguf[0])


def test_tokenizer_that_cannot_be_read(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(SourceError, match="transformers cannot load model"):
        load_model(resolve_source(str(folder)))


def test_code_that_comes_with_a_model_does_not_run(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    model, _ = load_model(resolve_source(str(folder)))
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not (tmp_path / "ran").exists()


def saved_ids(folder: Path) -> list[int]:
    return list(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "qwen3_vl"])
def test_saved_tokenizer_of_a_folder(kind: str, tiny_folder: TinyFolder, tmp_path: Path) -> None:
    save_tokenizer(resolve_source(str(tiny_folder(kind))), tmp_path)
    names = {"tokenizer.json", "tokenizer.safetensors", "tokenizer_config.json"}
    assert {file.name for file in tmp_path.iterdir()} == names
    assert saved_ids(tmp_path) == tiny_tokenizer()(TEXT)["input_ids"]
    assert open_backend(tmp_path).encode(TEXT, add_special_tokens=True) == saved_ids(tmp_path)


def test_saved_merges_take_few_bytes(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    save_tokenizer(resolve_source(str(tiny_folder("llama"))), tmp_path)
    merges = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["merges"]
    assert merges
    assert all(isinstance(merge, str) for merge in merges)


def test_merges_with_spaces_stay_pairs(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    source = resolve_source(str(tiny_folder("llama")))
    tokenizer = load_tokenizer(source)
    vocab = {token: index for index, token in enumerate(["a", " ", "a ", "<s>", "</s>", "<unk>"])}
    tokenizer.backend_tokenizer.model = tokenizers.models.BPE(vocab=vocab, merges=[("a", " ")])
    tokenizer.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("b", "removed")
    save_tokenizer(source, tmp_path, tokenizer=tokenizer)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["merges"] == [["a", " "]]
    assert open_backend(tmp_path).encode("a a", add_special_tokens=False)[:1] == [2]
    assert saved_ids(tmp_path)[0] == BOS


def test_saved_tokenizer_of_a_gguf(llama_gguf: tuple[ModelSource, torch.nn.Module], tmp_path: Path) -> None:
    save_tokenizer(llama_gguf[0], tmp_path)
    assert saved_ids(tmp_path) == tiny_tokenizer()(TEXT)["input_ids"]


def test_chat_template_is_saved(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    save_tokenizer(resolve_source(str(tiny_folder("llama", chat=True))), tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == CHAT_TEMPLATE


def test_chat_template_of_a_processor(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    (tmp_path / "bundle").mkdir()
    save_tokenizer(resolve_source(str(folder)), tmp_path / "bundle")
    assert (tmp_path / "bundle" / "chat_template.jinja").read_text() == CHAT_TEMPLATE


def test_tokenizer_that_is_already_loaded(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    source = resolve_source(str(tiny_folder("llama")))
    save_tokenizer(source, tmp_path, tokenizer=load_model(source)[1])
    assert saved_ids(tmp_path)[0] == BOS


def test_tokenizer_written_in_python(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    source = resolve_source(str(tiny_folder("llama")))
    with pytest.raises(SourceError, match="implemented in Python"):
        save_tokenizer(source, tmp_path, tokenizer=object())
