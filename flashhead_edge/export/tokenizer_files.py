"""The tokenizer of a bundle: one ``tokenizer.json`` that encodes as the model's own tokenizer does."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashhead_edge import layout
from flashhead_edge.errors import SourceError
from flashhead_edge.export.model_config import read_json
from flashhead_edge.export.models import load_tokenizer, quiet_transformers
from flashhead_edge.export.token_table_builder import write_token_table
from flashhead_edge.tokenizer_backends import WholeBackend, open_backend

if TYPE_CHECKING:
    from flashhead_edge.export.sources import ModelSource

_PROBE = "Hello, world!\n  3 * 4 = 12 größer"
#: Where processors of multimodal models keep the chat template.
_PROCESSOR_TEMPLATE = "chat_template.json"


def save_tokenizer(source: ModelSource, folder: Path, *, tokenizer: Any | None = None) -> None:
    """Write a model's tokenizer into a bundle.

    Args:
        source: From :func:`~flashhead_edge.export.sources.resolve_source`.
        folder: The bundle; gets ``tokenizer.json``, ``tokenizer_config.json``, the token table where the tokenizer can
            be one, and for chat models ``chat_template.jinja``.
        tokenizer: The tokenizer from ``load_model``, to save loading it once more.

    Raises:
        SourceError: The tokenizer cannot be read, or cannot be written as ``tokenizer.json``.
    """
    if tokenizer is None:
        tokenizer = load_tokenizer(source)
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise SourceError(
            "The tokenizer cannot be written as tokenizer.json.",
            found=f"a {type(tokenizer).__name__}, which is implemented in Python",
            expected="a tokenizer of the tokenizers library",
            hint="add a converted tokenizer.json to the model folder",
        )
    if not tokenizer.chat_template and source.kind != "gguf" and (source.path / _PROCESSOR_TEMPLATE).is_file():
        tokenizer.chat_template = read_json(source.path / _PROCESSOR_TEMPLATE).get("chat_template")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        with quiet_transformers():
            tokenizer.save_pretrained(scratch)
        _make_compact(Path(scratch) / layout.TOKENIZER)
        write_token_table(Path(scratch))
        _check_same(tokenizer, Path(scratch))
        for name in (layout.TOKENIZER, layout.TOKEN_TABLE, layout.TOKENIZER_CONFIG, layout.CHAT_TEMPLATE):
            if (file := Path(scratch) / name).is_file():
                shutil.move(file, folder / name)


def _make_compact(file: Path) -> None:
    """Write the same rules in fewer bytes, which a device may have to read at every start.

    Without white space, a third of the file; and with the two parts of a merge as one text, as the format has always
    allowed, where no token has a space in it.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    merges = content["model"].get("merges", [])
    if all(isinstance(merge, list) and " " not in "".join(merge) for merge in merges):
        content["model"]["merges"] = [" ".join(merge) for merge in merges]
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _check_same(tokenizer: Any, folder: Path) -> None:
    """Make sure that the written files, beginning-of-text token included, stand for the tokenizer."""
    wanted = list(tokenizer(_PROBE)["input_ids"])
    for backend in (WholeBackend(folder / layout.TOKENIZER), open_backend(folder)):
        found = backend.encode(_PROBE, add_special_tokens=True)
        if found != wanted:
            raise SourceError(
                "tokenizer.json does not encode as the model's tokenizer does.",
                found=f"{found[:12]} for {_PROBE!r}",
                expected=wanted[:12],
                hint="replace tokenizer.json in the model folder by the one that the model's authors publish",
            )
