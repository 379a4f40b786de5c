"""Tiny GGUF files, written with the ``gguf`` package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Kind
from tiny_models import BOS, EOS, SPECIAL, TURN_END, tiny_model, tiny_tokenizer

VOCAB_SIZE, HIDDEN_SIZE = 515, 256  # K-quants come in blocks of 256


def random_rows(seed: int = 0) -> npt.NDArray[np.float32]:
    """Rows [V, H] float32 of both signs, some near zero."""
    return np.random.default_rng(seed).normal(0, 0.1, (VOCAB_SIZE, HIDDEN_SIZE)).astype(np.float32)


def write_gguf(
    path: Path,
    tensors: Mapping[str, npt.NDArray[np.float32]],
    *,
    architecture: str = "llama",
    kind: Kind = Kind.F32,
    metadata: Mapping[str, Any] | None = None,
    tokens: bool = True,
    add_bos: bool | None = True,
) -> Path:
    """Write a GGUF file.

    Args:
        path: The file.
        tensors: By GGUF name, float32; matrices are stored as ``kind``, vectors as they are.
        architecture: ``general.architecture``.
        kind: GGML type of the matrices.
        metadata: By key without the architecture, which is put in front; int and float values.
        tokens: Whether to store the tokenizer of ``tiny_tokenizer``.
        add_bos: Whether texts begin with the beginning-of-text token, or None to say nothing of it.
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (metadata or {}).items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(key if key.startswith("split.") else f"{architecture}.{key}", value)
    if tokens:
        _add_tokenizer(writer, add_bos)
    for name, values in tensors.items():
        if values.ndim == 2 and kind is not Kind.F32:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_llama_gguf(path: Path, *, add_bos: bool | None = True) -> tuple[Path, Any]:
    """Write a whole tiny llama; returns the file and the transformers model with the same numbers."""
    model = tiny_model("llama", tied=True)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    config = model.config
    tensors = {
        "token_embd.weight": weights["model.embed_tokens.weight"],
        "output_norm.weight": weights["model.norm.weight"],
    }
    parts = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for ours, theirs in parts.items():
            values = weights[f"model.layers.{layer}.{theirs}.weight"]
            if ours in heads:  # llama.cpp interleaves the halves that RoPE rotates
                values = values.reshape(heads[ours], 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
            tensors[f"blk.{layer}.{ours}.weight"] = np.ascontiguousarray(values)
    metadata = {
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": 10000.0,
        "rope.dimension_count": config.hidden_size // config.num_attention_heads,
        "vocab_size": config.vocab_size,
    }
    return write_gguf(path, tensors, metadata=metadata, add_bos=add_bos), model


def _add_tokenizer(writer: Any, add_bos: bool | None) -> None:
    tokenizer = tiny_tokenizer()
    backend = tokenizer.backend_tokenizer
    texts = [backend.id_to_token(token_id) for token_id in range(backend.get_vocab_size())]
    texts += [f"[PAD{token_id}]" for token_id in range(len(texts), 509)]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    merges = json.loads(backend.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_types([control if text in SPECIAL else normal for text in texts])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_eot_token_id(TURN_END)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
