"""Where a model comes from: a folder, the Hugging Face Hub or a GGUF file."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flashhead_edge.errors import OptionError, SourceError
from flashhead_edge.export import hub
from flashhead_edge.export.gguf_files import GgufFile
from flashhead_edge.export.model_config import CONFIG, GENERATION_CONFIG, ModelConfig
from flashhead_edge.export.model_types import model_type_of_gguf
from flashhead_edge.export.safetensors_files import INDEX_SUFFIX, SafetensorsFiles, weight_files

#: Sets of files any of which is a tokenizer.
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
_GGUF_TOKENS = "tokenizer.ggml.tokens"
_SAMPLES, _SAMPLE_BYTES = 64, 4096


@dataclass(frozen=True)
class ModelSource:
    """A model whose files are here and looked through.

    Attributes:
        kind: A folder, a folder in the Hub's cache, or a GGUF file.
        path: The folder or the file.
        name: Name of the folder or file, or Hub id; never a path.
        model_type: ``model_type`` of the text model, such as ``llama`` or ``gemma3_text``.
    """

    kind: Literal["folder", "hub", "gguf"]
    path: Path
    name: str
    model_type: str

    def fingerprint(self) -> str:
        """Identify the model's content without reading all of it.

        Returns:
            SHA-256, in hex, over config and tokenizer, and of every weight file its name, size, start and 64 samples
            spread over it: a fine-tuned model differs from its base, a renamed folder does not differ.
        """
        digest = hashlib.sha256()
        for file in [self.path] if self.kind == "gguf" else _files_of_folder(self.path):
            size = file.stat().st_size
            name = "" if self.kind == "gguf" else file.name
            digest.update(f"{name}\0{size}\0".encode())
            with file.open("rb") as stream:
                for number in range(_SAMPLES):
                    stream.seek(max(0, size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                    digest.update(stream.read(_SAMPLE_BYTES))
        return digest.hexdigest()


def resolve_source(source: str, *, offline: bool = False, revision: str | None = None) -> ModelSource:
    """Find a model and make sure that it can be exported.

    Args:
        source: A model folder, a ``.gguf`` file, or, where no such path exists, a Hub id ``org/name``.
        offline: Take Hub models from the local cache only.
        revision: Branch, tag or commit of a Hub model.

    Returns:
        The model, its files on this machine.

    Raises:
        SourceError: There is no such model, or files are missing, truncated or damaged.
        UnsupportedModelError: The model is of a kind that we do not know.
        OptionError: ``revision`` is given for a local path.
    """
    path = Path(source).expanduser()
    if path.exists():
        if revision is not None:
            raise OptionError("A revision can only be chosen for models on the Hub.", found=f"the local path {source}")
        return _local(path)
    if hub.is_hub_id(source):
        folder = hub.download(source, offline=offline, revision=revision)
        return ModelSource("hub", folder, source, _check_folder(folder))
    raise SourceError(
        "There is no such model.",
        found=f"no file or folder {source}{_similar(path)}",
        expected="a model folder, a .gguf file, or a Hub id such as org/name",
    )


def _local(path: Path) -> ModelSource:
    if path.is_dir():
        return ModelSource("folder", path, path.resolve().name, _check_folder(path))
    if path.suffix.lower() != ".gguf":
        raise SourceError(
            "The model is a single file of another kind.",
            found=path.name,
            expected="a .gguf file or a model folder",
            hint="give the folder that holds the file" if path.suffix == ".safetensors" else None,
        )
    return ModelSource("gguf", path, path.name, _check_gguf(path))


def _check_folder(folder: Path) -> str:
    """Look through a folder and return its text model's type."""
    model_type = ModelConfig.from_folder(folder).model_type.name
    SafetensorsFiles(folder)
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        raise SourceError(
            "The model folder has no tokenizer.",
            found=f"neither {' nor '.join(' with '.join(names) for names in _TOKENIZERS)}",
            expected="tokenizer.json",
            hint="copy the tokenizer files of the model (or of the model it was trained from) into the folder",
        )
    return model_type


def _check_gguf(path: Path) -> str:
    """Look through a GGUF file and return its text model's type."""
    file = GgufFile(path)
    model_type = model_type_of_gguf(file.architecture).name
    if not file.header.array_length(_GGUF_TOKENS):
        raise SourceError(
            f"{path.name} has no tokenizer.", expected=f"{_GGUF_TOKENS} in its metadata", hint="convert the model again"
        )
    return model_type


def _files_of_folder(folder: Path) -> Iterable[Path]:
    names = (CONFIG, GENERATION_CONFIG, "tokenizer.json", "tokenizer_config.json", "tokenizer.model")
    small = [folder / name for name in names if (folder / name).is_file()]
    return [*small, *sorted(folder.glob("*" + INDEX_SUFFIX)), *weight_files(folder)]


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = [entry.name for entry in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""
