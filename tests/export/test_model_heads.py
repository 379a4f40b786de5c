"""The head that we read gives the logits that transformers computes, for every kind of model we call tested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny_models import ALL_KINDS, HIDDEN_SIZE, NESTED_KINDS, VOCAB_SIZE, save_tiny_model

from flashhead_edge.export.heads import embedding_scale, read_embedding, read_head
from flashhead_edge.export.models import load_model
from flashhead_edge.export.sources import ModelSource, resolve_source
from flashhead_edge.lm_head import LmHead

TinyFolder = Callable[..., Path]
#: Untied heads are looked for under the same names in nearly all kinds.
UNTIED_KINDS = ("llama", "qwen3", "gemma2", "granite", "cohere", "phi", "phi3", "gpt2", "gpt_neox", *NESTED_KINDS)
PROMPT = "The quick brown fox"


def run(source: ModelSource) -> dict[str, npt.NDArray[np.float32]]:
    """Run a model on a prompt; gives ids, states before the head, logits and, where layers are found, embeddings."""
    model, tokenizer = load_model(source)
    seen: dict[str, Any] = {}
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.update(states=inputs[0]))
    layers = getattr(model.get_decoder(), "layers", None)  # gpt2 adds positions before its layers
    if layers is not None:
        layers[0].register_forward_pre_hook(
            lambda _, inputs, named: seen.update(embedded=inputs[0] if inputs else named["hidden_states"]),
            with_kwargs=True,
        )
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        seen.update(ids=ids, logits=model(input_ids=ids).logits)
    return {name: tensor[0].numpy() for name, tensor in seen.items()}


def logits_of(head: LmHead, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    products = states @ head.rows.T
    return head.activate(products if head.bias is None else products + head.bias)


@pytest.mark.parametrize(
    ("kind", "tied"),
    [*((kind, True) for kind in ALL_KINDS), *((kind, False) for kind in UNTIED_KINDS)],
    ids=lambda value: {True: "tied", False: "untied"}.get(value, value),
)
def test_logits_and_embeddings_equal_transformers(kind: str, tied: bool, tmp_path: Path) -> None:
    source = resolve_source(str(save_tiny_model(kind, tmp_path / "model", tied=tied)))
    head = read_head(source)
    seen = run(source)
    assert head.tied is tied
    assert head.rows.shape == (VOCAB_SIZE, HIDDEN_SIZE)
    assert head.rows.dtype == np.float32
    assert head.rows.flags.c_contiguous
    np.testing.assert_allclose(logits_of(head, seen["states"]), seen["logits"], rtol=1e-5, atol=1e-5)
    if "embedded" in seen:
        rows = read_embedding(source)[seen["ids"]]
        np.testing.assert_allclose(rows * np.float32(embedding_scale(source)), seen["embedded"], rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("granite", {}, (1 / 8, None, 12.0)),
        ("cohere", {}, (0.25, None, 1.0)),
        ("gemma2", {}, (1.0, 2.0, 8.0)),
        ("gemma3_text", {"final_logit_softcapping": 3.0}, (1.0, 3.0, 8.0)),
        ("gemma2", {"final_logit_softcapping": None}, (1.0, None, 8.0)),
        ("llama", {}, (1.0, None, 1.0)),
    ],
    ids=["granite", "cohere", "gemma2", "gemma3-capped", "gemma2-uncapped", "llama"],
)
def test_scale_and_softcap(
    kind: str, settings: dict[str, Any], expected: tuple[Any, ...], tiny_folder: TinyFolder
) -> None:
    source = resolve_source(str(tiny_folder(kind, **settings)))
    head = read_head(source)
    assert (head.logit_scale, head.logit_softcap, embedding_scale(source)) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shard_size", ["1GB", "40KB"], ids=["one-file", "sharded"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_rows_are_exactly_the_stored_ones(dtype: torch.dtype, shard_size: str, tied: bool, tmp_path: Path) -> None:
    folder = save_tiny_model("qwen2", tmp_path / "model", tied=tied, dtype=dtype, shard_size=shard_size)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard_size == "40KB")
    source = resolve_source(str(folder))
    model, _ = load_model(source)
    head = read_head(source)
    np.testing.assert_array_equal(head.rows, model.get_output_embeddings().weight.detach().numpy())
    np.testing.assert_array_equal(read_embedding(source), model.get_input_embeddings().weight.detach().numpy())
    assert head.tied is tied
