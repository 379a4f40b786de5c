"""Tiny random decoders saved as Hugging Face folders, and how to run their exported bodies."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
import transformers
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from flashhead_edge.export.body import BodyInfo

VOCAB, HIDDEN = 96, 64
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LAYER_TYPES = ["sliding_attention"] * 5 + ["full_attention"]
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8, "num_hidden_layers": 6}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CONFIGS = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": True}),
    "llama3-rope": ("LlamaConfig", {"rope_parameters": LLAMA3}),
    "llama-untied": ("LlamaConfig", {"tie_word_embeddings": False}),
    "qwen3": ("Qwen3Config", {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma3": ("Gemma3TextConfig", {**GEMMA, "layer_types": LAYER_TYPES}),
    "gemma2": ("Gemma2Config", GEMMA),
    "gemma": ("GemmaConfig", {"head_dim": 16}),
    "qwen2": ("Qwen2Config", {}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "phi3": ("Phi3Config", {"original_max_position_embeddings": 128}),
    "granite": (
        "GraniteConfig",
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.1, "logits_scaling": 2.0},
    ),
}


def save_tiny_model(kind: str, folder: Path) -> transformers.PreTrainedModel:
    """Save a random model with a tokenizer and return it in evaluation mode, float32."""
    name, fields = CONFIGS[kind]
    config = getattr(transformers, name)(**COMMON | fields)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the usual 0.02 would leave next to nothing of every layer's work
            parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.1) + (parameter.ndim < 2))
    model.save_pretrained(folder)
    vocab = {f"<{i}>": i for i in range(3)} | {c: i for i, c in enumerate(string.printable[: VOCAB - 3], start=3)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<0>"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<1>", eos_token="<2>", pad_token="<0>"
    ).save_pretrained(folder)
    return model


def session(path: Path) -> ort.InferenceSession:
    """A quiet CPU session."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def empty_cache(info: BodyInfo, batch: int = 1) -> dict[str, np.ndarray]:
    """The cache before the first token."""
    shape = (batch, info.num_kv_heads, 0, info.head_dim)
    return {name: np.zeros(shape, np.float32) for name in info.past_key_names + info.past_value_names}


def step(
    run: ort.InferenceSession, info: BodyInfo, cache: dict[str, np.ndarray], outputs: list[str], **feed: np.ndarray
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """One call; returns the named outputs and the grown cache."""
    present = info.present_key_names + info.present_value_names
    results = run.run([*outputs, *present], {**feed, **cache})
    past = info.past_key_names + info.past_value_names
    return results[: len(outputs)], dict(zip(past, results[len(outputs) :], strict=True))
