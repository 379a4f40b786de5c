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

if TYPE_CHECKING:
    from flashhead_edge.export.sources import ModelSource

_PROBE = "Hello, world!\n  3 * 4 = 12 größer"
#: Where processors of multimodal models keep the chat template.
_PROCESSOR_TEMPLATE = "chat_template.json"


def save_tokenizer(source: ModelSource, folder: Path, *, tokenizer: Any | None = None) -> None:
    """Write a model's tokenizer into a bundle.

    Args:
        source: From :func:`~flashhead_edge.export.sources.resolve_source`.
        folder: The bundle; gets ``tokenizer.json``, ``tokenizer_config.json`` and, for chat models,
            ``chat_template.jinja``.
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
        _check_same(tokenizer, Path(scratch) / layout.TOKENIZER)
        for name in (layout.TOKENIZER, layout.TOKENIZER_CONFIG, layout.CHAT_TEMPLATE):
            if (file := Path(scratch) / name).is_file():
                shutil.move(file, folder / name)


def _make_compact(file: Path) -> None:
    """Leave out the white space, a third of the file, which a device would read at every start."""
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _check_same(tokenizer: Any, file: Path) -> None:
    """Make sure that the written file, beginning-of-text token included, stands for the tokenizer."""
    import tokenizers

    wanted = list(tokenizer(_PROBE)["input_ids"])
    found = list(tokenizers.Tokenizer.from_file(str(file)).encode(_PROBE).ids)
    if found != wanted:
        raise SourceError(
            "tokenizer.json does not encode as the model's tokenizer does.",
            found=f"{found[:12]} for {_PROBE!r}",
            expected=wanted[:12],
            hint="replace tokenizer.json in the model folder by the one that the model's authors publish",
        )
