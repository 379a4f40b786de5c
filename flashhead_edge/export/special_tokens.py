"""Tokens with a meaning beyond text: beginning, end, control."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashhead_edge.export.gguf_files import GgufFile
from flashhead_edge.export.model_config import GENERATION_CONFIG, ModelConfig, read_json

if TYPE_CHECKING:
    from flashhead_edge.export.sources import ModelSource

#: Tokens that end a turn by their meaning, whatever the config lists as EOS (base models often list only one).
_END_OF_TURN = frozenset({"<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>"})
#: Ids set aside for later use; Gemma 3 has 6,242 of them, none of which the model ever writes.
_RESERVED = re.compile(
    r"[<\[|]+(unused|reserved|reserved_special_token|extra|extra_id|control|special|dummy)_?\d+[>\]|]+", re.I
)
_GGUF_CONTROL = 3


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of special tokens, each tuple sorted.

    Attributes:
        bos: Beginnings of text.
        eos: Ends of text or turn: all that the model's files list.
        control: All special tokens but the ids that are reserved for later use; holds most of ``bos`` and ``eos``.
    """

    bos: tuple[int, ...]
    eos: tuple[int, ...]
    control: tuple[int, ...]


def special_token_ids(source: ModelSource) -> SpecialTokens:
    """Collect the special tokens of a model.

    Args:
        source: From :func:`~flashhead_edge.export.sources.resolve_source`.

    Returns:
        Ids from config, generation config and tokenizer files, or from GGUF metadata.

    Raises:
        SourceError: A file is damaged.
    """
    return _of_gguf(source.path) if source.kind == "gguf" else _of_folder(source.path)


def _of_folder(folder: Path) -> SpecialTokens:
    config = ModelConfig.from_folder(folder)
    generation = _read_if_there(folder / GENERATION_CONFIG)
    tokenizer = _read_if_there(folder / "tokenizer_config.json")
    special = _special_of_folder(folder, tokenizer)
    id_of = {text: token_id for token_id, text in special.items()}

    def ids(kind: str) -> set[int]:
        stated = {*_as_ids(config.get(f"{kind}_token_id")), *_as_ids(generation.get(f"{kind}_token_id"))}
        text = tokenizer.get(f"{kind}_token")
        text = text.get("content") if isinstance(text, dict) else text
        return stated | ({id_of[text]} if text in id_of else set())

    return _collected(ids("bos"), ids("eos"), special)


def _of_gguf(path: Path) -> SpecialTokens:
    header = GgufFile(path).header
    kinds = header.array("tokenizer.ggml.token_type")
    texts = header.array("tokenizer.ggml.tokens")
    special = {token_id: texts[token_id] for token_id, kind in enumerate(kinds[: len(texts)]) if kind == _GGUF_CONTROL}

    def ids(*names: str) -> set[int]:
        return {
            int(value)
            for name in names
            if (value := header.metadata.get(f"tokenizer.ggml.{name}_token_id")) is not None
        }

    return _collected(ids("bos"), ids("eos", "eot", "eom"), special)


def _collected(bos: Iterable[int], eos: Iterable[int], special: Mapping[int, str]) -> SpecialTokens:
    turns = {token_id for token_id, text in special.items() if text in _END_OF_TURN}
    control = (token_id for token_id, text in special.items() if _RESERVED.fullmatch(text) is None)
    return SpecialTokens(tuple(sorted(bos)), tuple(sorted({*eos, *turns})), tuple(sorted(control)))


def _special_of_folder(folder: Path, tokenizer_config: Mapping[str, Any]) -> dict[int, str]:
    """Special tokens by id, from ``tokenizer.json`` and, for older models, ``tokenizer_config.json``."""
    added = [(entry.get("id"), entry) for entry in _read_if_there(folder / "tokenizer.json").get("added_tokens") or []]
    added += list((tokenizer_config.get("added_tokens_decoder") or {}).items())
    return {int(token_id): str(entry["content"]) for token_id, entry in added if entry.get("special")}


def _as_ids(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(item) for item in (value if isinstance(value, list) else [value])]


def _read_if_there(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
