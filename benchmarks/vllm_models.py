"""Folders of models for vLLM, as they are and published.

Real ones are in bfloat16, made of their .gguf files; others have a model's sizes and no weights, which vLLM then draws.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import WORK, bundle_of, model_file
from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import BundleError
from flashhead_edge.export.models import load_model, model_folder
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.publish import ASSETS, publish
from flashhead_edge.export.sources import resolve_source
from flashhead_edge.files import new_folder
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.index.storage import save_index
from flashhead_edge.runtimes.vllm.architectures import PREFIX

#: Configurations of models that only give their sizes; as their makers publish them, positions aside.
SIZES: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
    },
    "qwen3-1.7b": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
}
_COMMON = {
    "tie_word_embeddings": True,
    "max_position_embeddings": 4096,
    "rope_theta": 500_000.0,
    "torch_dtype": "bfloat16",
}


def is_random(name: str) -> bool:
    """Whether a model has no weights here."""
    return name in SIZES


def sized_folders(name: str) -> tuple[Path, Path]:
    """Folders with the sizes of a model, standard and published: clusters and centroids are random, as weights will be.

    Args:
        name: One of :data:`SIZES`.
    """
    config = _COMMON | SIZES[name]
    standard, published = WORK / f"{name}-sizes", WORK / f"{name}-sizes-published"
    vocab = config["vocab_size"]
    with new_folder(standard, force=True) as folder:
        (folder / "config.json").write_text(json.dumps(config))
    with new_folder(published, force=True) as folder:
        (folder / ASSETS).mkdir()
        save_index(random_index(vocab, config["hidden_size"]), folder / ASSETS / "index.safetensors")
        ours = {
            "architectures": [PREFIX + config["architectures"][0]],
            "flash_head_cache_dir": ASSETS,
            "n_probes": ExportOptions().probes(vocab),
        }
        (folder / "config.json").write_text(json.dumps(config | ours))
    return standard, published


def random_index(vocab_size: int, hidden_size: int) -> HeadIndex:
    """An index of the default export's sizes, but without always-scored tokens: any tokens, any centroids."""
    clusters = ExportOptions().index.num_clusters(vocab_size)
    size = -(-vocab_size // clusters)
    order = np.full(clusters * size, -1, np.int32)
    random = np.random.default_rng(0)
    order[:vocab_size] = random.permutation(vocab_size)
    return HeadIndex(
        token_order=order.reshape(clusters, size),
        centroids=random.standard_normal((clusters, hidden_size), dtype=np.float32),
        centroid_bias=np.zeros(clusters, np.float32),
        selection_offset=np.zeros(clusters, np.float32),
        cluster_variance=np.ones(clusters, np.float32),
        vocab_size=vocab_size,
    )


def standard_folder(name: str) -> Path:
    """The model as a Hugging Face folder in bfloat16, made on first use.

    Args:
        name: One of :data:`benchmarks.models.MODELS`.
    """
    import torch

    output = WORK / f"{name}-bf16"
    if not (output / "config.json").is_file():
        source = resolve_source(str(model_file(name)))
        model, tokenizer = load_model(source)
        model.config.dtype = torch.bfloat16
        with new_folder(output, force=True) as folder:
            model_folder(source, folder, loaded=(model.to(torch.bfloat16), tokenizer))
    return output


def published_folder(name: str) -> Path:
    """The same model with the two-stage head of a default export, made on first use."""
    output = WORK / f"{name}-published"
    if not (output / "config.json").is_file():
        publish(_bundle(name), standard_folder(name), output, force=True)
    return output


def _bundle(name: str) -> Bundle:
    """The demonstration's bundle if it is there, or one of the head alone; both have the default export's index."""
    try:
        return Bundle.open(WORK / f"{name}-int4-bundle")
    except BundleError:
        return bundle_of(name, ExportOptions(body_precision=None), label="head-bundle")
