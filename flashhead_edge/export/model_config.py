"""``config.json`` and its siblings, read as plain JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashhead_edge.errors import SourceError
from flashhead_edge.export.model_types import ModelType, model_type_named

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"

#: Keys under which multimodal models nest the configuration of their text part.
_TEXT_KEYS = ("text_config", "llm_config", "language_config")


@dataclass(frozen=True)
class ModelConfig:
    """What ``config.json`` says about the text model.

    Attributes:
        whole: The file's content.
        text: The nested part that describes the text model, or ``whole`` where nothing is nested.
        model_type: Family of the text model.
    """

    whole: Mapping[str, Any]
    text: Mapping[str, Any]
    model_type: ModelType

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Read a model folder's ``config.json``.

        Raises:
            SourceError: The file is missing or not what it should be.
            UnsupportedModelError: The text model's ``model_type`` is unknown.
        """
        file = folder / CONFIG
        if not file.is_file():
            raise SourceError(
                "The model folder has no config.json.",
                found=_listing(folder),
                expected="a Hugging Face model folder: config.json, *.safetensors, tokenizer.json",
                hint="give the folder that holds these files, a .gguf file, or a Hub id such as org/name",
            )
        whole = read_json(file)
        nested = next((whole[key] for key in _TEXT_KEYS if isinstance(whole.get(key), dict)), None)
        text = whole if nested is None else nested
        name = text.get("model_type") or whole.get("model_type")
        if not isinstance(name, str):
            raise SourceError(
                "config.json does not name the kind of model.",
                found=f"keys {', '.join(sorted(map(str, text))[:12])}",
                expected="a model_type",
            )
        return cls(whole, text, model_type_named(name))

    @property
    def multimodal(self) -> bool:
        """Whether the text model is a part of a multimodal model."""
        return self.text is not self.whole or self.whole.get("model_type") in self.model_type.wrappers

    def get(self, key: str) -> Any:
        """The value of ``key``: the text part's, else the whole's, else None."""
        value = self.text.get(key)
        return self.whole.get(key) if value is None else value

    @property
    def says_untied(self) -> bool:
        """Whether head and embedding are declared to be different matrices.

        The outer level decides for multimodal models, as in transformers.
        """
        for level in (self.whole, self.text):
            if level.get("tie_word_embeddings") is not None:
                return level["tie_word_embeddings"] is False
        return False

    def number(self, key: str) -> float | None:
        """The number at ``key``, or None where it is missing or null.

        Raises:
            SourceError: The value is not a number.
        """
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SourceError(f"config.json holds a wrong {key}.", found=repr(value), expected="a number")
        return float(value)


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        SourceError: The file cannot be read or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{file.name} cannot be read.", found=error, expected="a JSON object", hint="download the model again"
        ) from error
    if not isinstance(content, dict):
        raise SourceError(f"{file.name} holds no JSON object.", found=f"a {type(content).__name__}")
    return content


def _listing(folder: Path, limit: int = 8) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        return "an empty folder"
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
