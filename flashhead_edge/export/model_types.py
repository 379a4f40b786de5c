"""What differs between model families in their head and embedding, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flashhead_edge.errors import UnsupportedModelError, did_you_mean

#: Names of embedding and head in most checkpoints; nested and legacy multimodal names come after the plain ones.
_EMBEDDING = (
    "model.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
    "language_model.embed_tokens.weight",
    "embed_tokens.weight",
)
_HEAD = ("lm_head.weight", "language_model.lm_head.weight", "model.language_model.lm_head.weight")
_GPT_EMBEDDING = ("transformer.wte.weight", "wte.weight")


@dataclass(frozen=True)
class ScaleRule:
    """Where a factor is written.

    Attributes:
        key: Key in ``config.json``.
        gguf_key: Key in GGUF metadata after the architecture's name.
        divides: Whether the number divides instead of multiplying.
        default: What a missing key means.
    """

    key: str
    gguf_key: str
    divides: bool = False
    default: float = 1.0


@dataclass(frozen=True)
class ModelType:
    """Where a family of models keeps its head, and what happens to the logits.

    Attributes:
        name: ``model_type`` of the text model in ``config.json``.
        tested: Whether our tests compare its logits with transformers.
        embedding: Names the input embedding may have, the usual one first.
        head: Names the head may have when it is a tensor of its own.
        logit_scale: Factor on the logits, or None.
        softcap: Default of ``final_logit_softcapping`` where the family has such a key; 0.0 means none by default.
        embedding_scale: Factor on the embedding: by a key, by the root of the hidden size, or none.
        gguf: Architecture names in GGUF files.
        wrappers: Multimodal ``model_type`` names whose text part this is, for configs that leave it unsaid.
    """

    name: str
    tested: bool = True
    embedding: tuple[str, ...] = _EMBEDDING
    head: tuple[str, ...] = _HEAD
    logit_scale: ScaleRule | None = None
    softcap: float | None = None
    embedding_scale: ScaleRule | Literal["sqrt_hidden"] | None = None
    gguf: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()


_GRANITE_LOGITS = ScaleRule("logits_scaling", "logit_scale", divides=True)
_GRANITE_EMBEDDING = ScaleRule("embedding_multiplier", "embedding_scale")
_COHERE_LOGITS = ScaleRule("logit_scale", "logit_scale", default=0.0625)


def _granite(name: str, *gguf: str) -> ModelType:
    return ModelType(name, logit_scale=_GRANITE_LOGITS, embedding_scale=_GRANITE_EMBEDDING, gguf=gguf)


_TABLE = (
    ModelType("llama", gguf=("llama",)),
    ModelType("mistral", wrappers=("mistral3", "pixtral")),
    ModelType("ministral3"),
    ModelType("mixtral"),
    ModelType("qwen2", gguf=("qwen2",)),
    ModelType("qwen2_moe", gguf=("qwen2moe",)),
    ModelType("qwen2_vl_text", gguf=("qwen2vl",), wrappers=("qwen2_vl",)),
    ModelType("qwen2_5_vl_text", wrappers=("qwen2_5_vl",)),
    ModelType("qwen3", gguf=("qwen3",)),
    ModelType("qwen3_moe", gguf=("qwen3moe",)),
    ModelType("qwen3_vl_text", gguf=("qwen3vl",), wrappers=("qwen3_vl",)),
    ModelType("qwen3_5_text", gguf=("qwen35",), wrappers=("qwen3_5",)),
    ModelType("gemma", embedding_scale="sqrt_hidden", gguf=("gemma",)),
    ModelType("gemma2", softcap=30.0, embedding_scale="sqrt_hidden", gguf=("gemma2",)),
    ModelType("gemma3_text", softcap=0.0, embedding_scale="sqrt_hidden", gguf=("gemma3",), wrappers=("gemma3",)),
    ModelType("smollm3", gguf=("smollm3",)),
    _granite("granite", "granite"),
    _granite("granitemoe", "granitemoe"),
    _granite("granitemoeshared"),
    _granite("granitemoehybrid", "granitehybrid"),
    ModelType("cohere", logit_scale=_COHERE_LOGITS, gguf=("command-r",)),
    ModelType("cohere2", logit_scale=_COHERE_LOGITS, gguf=("cohere2",)),
    ModelType("phi", gguf=("phi2",)),
    ModelType("phi3", gguf=("phi3",)),
    ModelType("gpt2", embedding=_GPT_EMBEDDING, gguf=("gpt2",)),
    ModelType(
        "gpt_neox",
        embedding=("gpt_neox.embed_in.weight",),
        head=("embed_out.weight", "lm_head.weight"),
        gguf=("gptneox",),
    ),
    ModelType("exaone", tested=False, embedding=_GPT_EMBEDDING, gguf=("exaone",)),
    ModelType("exaone4", gguf=("exaone4",)),
    ModelType("olmo", gguf=("olmo",)),
    ModelType("olmo2", gguf=("olmo2",)),
    ModelType("olmo3"),
    ModelType("starcoder2", gguf=("starcoder2",)),
    ModelType("stablelm", gguf=("stablelm",)),
    ModelType("arcee", gguf=("arcee",)),
    ModelType("apertus", gguf=("apertus",)),
    ModelType("ernie4_5", gguf=("ernie4_5",)),
    ModelType("glm"),
    ModelType("glm4", gguf=("glm4",)),
    ModelType("helium"),
    ModelType("hunyuan_v1_dense", gguf=("hunyuan-dense",)),
    ModelType("lfm2", gguf=("lfm2",)),
    ModelType("nemotron", gguf=("nemotron",)),
    ModelType("seed_oss", gguf=("seed_oss",)),
)

#: Every family whose head can be read, by the ``model_type`` of its text model.
MODEL_TYPES: dict[str, ModelType] = {entry.name: entry for entry in _TABLE}
_BY_WRAPPER = {wrapper: entry for entry in _TABLE for wrapper in entry.wrappers}
_BY_GGUF = {architecture: entry for entry in _TABLE for architecture in entry.gguf}


def model_type_named(name: str) -> ModelType:
    """The family of a text model, or of the text part of a multimodal one.

    Args:
        name: ``model_type`` from ``config.json``.

    Raises:
        UnsupportedModelError: We do not know the name; the error lists the names that we do.
    """
    entry = MODEL_TYPES.get(name) or _BY_WRAPPER.get(name)
    if entry is None:
        raise UnsupportedModelError(
            "This kind of model is not supported.",
            found=f"model_type {name!r}",
            expected=did_you_mean(name, [*MODEL_TYPES, *_BY_WRAPPER], limit=100),
            hint="if it keeps its head like one of these, set that model_type in a copy of config.json",
        )
    return entry


def model_type_of_gguf(architecture: str) -> ModelType:
    """The family that a GGUF architecture stands for.

    Args:
        architecture: ``general.architecture``.

    Raises:
        UnsupportedModelError: We do not know the architecture.
    """
    entry = _BY_GGUF.get(architecture)
    if entry is None:
        raise UnsupportedModelError(
            "This kind of GGUF model is not supported.",
            found=f"general.architecture {architecture!r}",
            expected=did_you_mean(architecture, _BY_GGUF, limit=100),
            hint="export from the Hugging Face folder of the model if its model_type is supported",
        )
    return entry
