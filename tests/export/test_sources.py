"""Finding models, and what is said when there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import huggingface_hub
import pytest
from huggingface_hub import errors as hub_errors

from flashhead_edge.errors import OptionError, SourceError, UnsupportedModelError
from flashhead_edge.export.sources import resolve_source

TinyFolder = Callable[..., Path]


@pytest.fixture
def copy(tiny_folder: TinyFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "my-llama"))


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, tiny_folder: TinyFolder) -> list[dict[str, Any]]:
    """Replaces the Hub by a folder; holds what was asked of it."""
    calls: list[dict[str, Any]] = []

    def snapshot_download(repo_id: str, **options: Any) -> str:
        calls.append({"repo_id": repo_id, **options})
        return str(tiny_folder("qwen3"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


@pytest.fixture
def failing_hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    def fail(error: Exception) -> None:
        def snapshot_download(*_: Any, **__: Any) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)

    return fail


def http_error(kind: type[Exception], text: str) -> Exception:
    return kind(text, response=mock.Mock(headers={}))


class UnreachableError(hub_errors.HfHubHTTPError.__bases__[0]):
    """What the HTTP client of this version of huggingface_hub raises has this root."""


@pytest.mark.usefixtures("no_network")
def test_folder(copy: Path) -> None:
    source = resolve_source(str(copy))
    assert (source.kind, source.path, source.name, source.model_type) == ("folder", copy, "my-llama", "llama")


@pytest.mark.usefixtures("no_network")
def test_relative_path_wins_over_a_hub_id(copy: Path, monkeypatch: pytest.MonkeyPatch, downloads: list[Any]) -> None:
    monkeypatch.chdir(copy.parent.parent)
    source = resolve_source(f"{copy.parent.name}/my-llama")
    assert source.kind == "folder"
    assert source.name == "my-llama"
    assert downloads == []


def test_current_folder_has_a_name(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    assert resolve_source(".").name == "my-llama"


def test_hub_id(downloads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    source = resolve_source("Qwen/Qwen3-0.6B", revision="main")
    assert (source.kind, source.name, source.model_type) == ("hub", "Qwen/Qwen3-0.6B", "qwen3")
    (call,) = downloads
    assert (call["repo_id"], call["revision"], call["local_files_only"]) == ("Qwen/Qwen3-0.6B", "main", False)
    assert not any(pattern.endswith((".bin", ".pt", ".py", ".pkl")) for pattern in call["allow_patterns"])


@pytest.mark.parametrize(("offline", "variable"), [(True, ""), (False, "1"), (False, "true")])
def test_offline(
    offline: bool, variable: str, downloads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", variable)
    resolve_source("org/name", offline=offline)
    assert downloads[0]["local_files_only"] is True


@pytest.mark.usefixtures("no_network")
def test_offline_and_not_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match=r"org/name is not on this machine(.|\n)*hf download org/name"):
        resolve_source("org/name", offline=True)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hub_errors.LocalEntryNotFoundError("no connection"), r"could not be downloaded(.|\n)*no connection"),
        (http_error(hub_errors.RepositoryNotFoundError, "404 Client Error"), "neither here nor on the Hub"),
        (http_error(hub_errors.RevisionNotFoundError, "no such revision"), "no such revision"),
        (
            http_error(hub_errors.GatedRepoError, "awaiting review"),
            r"accept it on https://huggingface.co/org/name",
        ),
        (http_error(hub_errors.HfHubHTTPError, "server error"), r"could not be downloaded(.|\n)*server error"),
        (ConnectionError("name resolution failed"), r"could not be downloaded(.|\n)*name resolution"),
        (UnreachableError("unreachable"), r"could not be downloaded(.|\n)*unreachable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_hub_failures(
    error: Exception, message: str, failing_hub: Callable[[Exception], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    failing_hub(error)
    with pytest.raises(SourceError, match=message):
        resolve_source("org/name")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["missing", "./org/name", "/no/such/model", "a/b/c", "org/model.gguf", "gpt2", ""])
def test_nothing_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "":
        with pytest.raises(SourceError):
            resolve_source(name)
        return
    with pytest.raises(SourceError, match=r"no such model(.|\n)*expected: a model folder, a .gguf file, or a Hub id"):
        resolve_source(name)


def test_similar_name(copy: Path) -> None:
    with pytest.raises(SourceError, match="did you mean my-llama"):
        resolve_source(str(copy.parent / "my-lama"))


def test_revision_of_a_local_model(copy: Path) -> None:
    with pytest.raises(OptionError, match="revision"):
        resolve_source(str(copy), revision="main")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no config.json(.|\n)*an empty folder"):
        resolve_source(str(tmp_path))


def test_folder_without_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"no weights(.|\n)*git lfs pull"):
        resolve_source(str(copy))


def test_folder_with_pickled_weights(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(SourceError, match=r"can run code(.|\n)*pytorch_model.bin(.|\n)*save_pretrained"):
        resolve_source(str(copy))


def test_folder_without_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"no tokenizer(.|\n)*tokenizer.json"):
        resolve_source(str(copy))


def test_file_of_another_kind(copy: Path) -> None:
    with pytest.raises(SourceError, match=r"model.safetensors(.|\n)*give the folder"):
        resolve_source(str(copy / "model.safetensors"))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"architectures": ["X"]}'], ids=["empty", "cut", "list", "no-type"]
)
def test_damaged_config(content: str, copy: Path) -> None:
    (copy / "config.json").write_text(content)
    with pytest.raises(SourceError, match=r"config.json"):
        resolve_source(str(copy))


def test_unknown_model_type(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "gemma2_"}))
    with pytest.raises(UnsupportedModelError, match=r"'gemma2_'(.|\n)*did you mean 'gemma2'(.|\n)*Known: .*llama"):
        resolve_source(str(copy))


def test_fingerprint_depends_on_content_alone(copy: Path, tiny_folder: TinyFolder) -> None:
    fingerprint = resolve_source(str(tiny_folder("llama"))).fingerprint()
    assert len(fingerprint) == 64
    assert resolve_source(str(copy)).fingerprint() == fingerprint
    assert resolve_source(str(tiny_folder("llama", seed=1))).fingerprint() != fingerprint
    with (copy / "config.json").open("a") as file:
        file.write("\n")
    assert resolve_source(str(copy)).fingerprint() != fingerprint
