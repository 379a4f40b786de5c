"""Small companions of a tiny model: LoRA adapters and an EAGLE draft, built in code."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from served_models import HIDDEN, SIZES
from tiny_models import VOCAB_SIZE, tiny_config, tiny_model

RANK = 4


def lora_adapter(folder: Path, modules: tuple[str, ...]) -> Path:
    """An adapter strong enough to change a tiny Llama's texts.

    Args:
        folder: Folder to make.
        modules: Names of what it changes: "q_proj", "v_proj", "lm_head".
    """
    folder.mkdir()
    torch.manual_seed(3)
    widths = {"q_proj": 128, "v_proj": 64, "lm_head": VOCAB_SIZE}
    places = {name: [f"model.layers.{layer}.self_attn.{name}" for layer in range(2)] for name in ("q_proj", "v_proj")}
    places["lm_head"] = ["lm_head"]
    tensors = {}
    for module in modules:
        for place in places[module]:
            tensors[f"base_model.model.{place}.lora_A.weight"] = torch.randn(RANK, HIDDEN)
            tensors[f"base_model.model.{place}.lora_B.weight"] = torch.randn(widths[module], RANK) * 0.2
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"target_modules": list(modules)}))
    return folder


def eagle_draft(folder: Path) -> Path:
    """A draft that mostly repeats what the target's hidden state already says, so some of its drafts are accepted.

    Args:
        folder: Folder to make.
    """
    config = tiny_config("llama", **SIZES, num_hidden_layers=1, architectures=["LlamaForCausalLM"])
    layer = tiny_model("llama", **SIZES, num_hidden_layers=1, seed=5).model.layers[0]
    weights = {f"layers.0.{name}": value.clone() for name, value in layer.state_dict().items()}
    del weights["layers.0.input_layernorm.weight"]  # the first layer of such a draft has none
    weights["fc.weight"] = torch.cat([torch.zeros(HIDDEN, HIDDEN), torch.eye(HIDDEN)], dim=1)
    folder.mkdir()
    config.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors")
    return folder
