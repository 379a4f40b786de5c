"""The table of model types, its tests and its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_models import ALL_KINDS

from flashhead_edge.errors import UnsupportedModelError
from flashhead_edge.export.body_support import BODY_ARCHITECTURES
from flashhead_edge.export.model_types import MODEL_TYPES, model_type_named, model_type_of_gguf

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def test_tested_means_that_there_is_a_tiny_model() -> None:
    assert {name for name, entry in MODEL_TYPES.items() if entry.tested} == {
        model_type_named(kind).name for kind in ALL_KINDS
    }


def test_the_promised_types_are_tested() -> None:
    promised = [
        "llama",
        "qwen2",
        "qwen3",
        "qwen3_vl",
        "gemma2",
        "gemma3_text",
        "mistral",
        "smollm3",
        "granite",
        "cohere",
        "phi3",
        "gpt2",
    ]
    assert all(model_type_named(name).tested for name in promised)


def test_names_are_unique() -> None:
    for names in (
        [name for entry in MODEL_TYPES.values() for name in entry.gguf],
        [name for entry in MODEL_TYPES.values() for name in (entry.name, *entry.wrappers)],
    ):
        assert len(names) == len(set(names))


def test_gguf_architectures_exist() -> None:
    from gguf.constants import MODEL_ARCH_NAMES

    assert {name for entry in MODEL_TYPES.values() for name in entry.gguf} <= set(MODEL_ARCH_NAMES.values())


def test_model_types_exist() -> None:
    from transformers import CONFIG_MAPPING

    elsewhere = {"exaone"}  # comes with code of its own
    assert {name for name in MODEL_TYPES if name not in CONFIG_MAPPING} == elsewhere


@pytest.mark.parametrize(
    ("name", "guess"), [("lama", "llama"), ("gemma3_txt", "gemma3_text"), ("qwen3_vl_2", "qwen3_vl")]
)
def test_unknown_type(name: str, guess: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"'{name}'(.|\n)*did you mean .*'{guess}'(.|\n)*Known: "):
        model_type_named(name)


def test_unknown_architecture() -> None:
    with pytest.raises(UnsupportedModelError, match=r"did you mean 'qwen3'"):
        model_type_of_gguf("qwen-3")


@pytest.mark.skipif(not PAGE.is_file(), reason="runs in a source tree")
def test_page_is_up_to_date() -> None:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    def yes(value: object) -> str:
        return "yes" if value else "no"

    loadable = {name.replace("_", "") for name in GGUF_SUPPORTED_ARCHITECTURES}
    rows = {
        cells[0]: tuple(cells[1:4] + cells[-1:])
        for line in re.findall(r"^\| (`\w+`.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        if (cells := [cell.strip().replace("`", "") for cell in line.split("|")])
    }
    assert rows == {
        name: (
            yes(entry.tested),
            ", ".join(entry.wrappers),
            ", ".join(other + ("" if other in loadable else " (head)") for other in entry.gguf),
            yes(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(name) in BODY_ARCHITECTURES),
        )
        for name, entry in MODEL_TYPES.items()
    }
