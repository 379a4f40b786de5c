"""Tiny random models of many kinds, with a real tokenizer, built in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCAB_SIZE, HIDDEN_SIZE = 509, 64
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<|im_start|>", "<|im_end|>", "<unused0>", "<unused1>")
PAD, BOS, EOS, UNK, TURN_START, TURN_END = range(6)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CORPUS = (
    "The quick brown fox jumps over the lazy dog.",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "def add(first, second):\n    return first + second\n",
    "the head scores the rows of the vocabulary, the rest of the model makes the states",
)
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
_HEAD_DIM = {"head_dim": 16}
_GEMMA = {**_HEAD_DIM, "query_pre_attn_scalar": 16, "sliding_window": 16}
_GEMMA3 = {
    **_GEMMA,
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
}
_MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GRANITE = {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22}
_HYBRID = {
    **_MOE,
    "num_local_experts": 0,
    "shared_intermediate_size": 96,
    "layer_types": ["mamba", "attention"],
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
}
_LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 4,
    "image_size": 16,
}
_QWEN_VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": HIDDEN_SIZE,
    "patch_size": 4,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
}
_QWEN2_VISION = {"depth": 1, "embed_dim": 32, "hidden_size": HIDDEN_SIZE, "num_heads": 2, "patch_size": 4}
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}}

#: Configuration class and what it needs beside the common settings.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", _HEAD_DIM),
    "gemma": ("GemmaConfig", _HEAD_DIM),
    "gemma2": ("Gemma2Config", {**_GEMMA, "final_logit_softcapping": 2.0}),
    "gemma3_text": ("Gemma3TextConfig", _GEMMA3),
    "mistral": ("MistralConfig", {}),
    "smollm3": ("SmolLM3Config", {}),
    "granite": ("GraniteConfig", _GRANITE),
    "cohere": ("CohereConfig", {"logit_scale": 0.25}),
    "cohere2": ("Cohere2Config", {"logit_scale": 0.25}),
    "phi": ("PhiConfig", {}),
    "phi3": ("Phi3Config", {}),
    "gpt2": ("GPT2Config", {"n_embd": HIDDEN_SIZE, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "qwen2_moe": ("Qwen2MoeConfig", {**_MOE, "shared_expert_intermediate_size": 32}),
    "qwen3_moe": ("Qwen3MoeConfig", {**_MOE, **_HEAD_DIM}),
    "mixtral": ("MixtralConfig", _MOE),
    "granitemoe": ("GraniteMoeConfig", {**_GRANITE, **_MOE}),
    "exaone4": ("Exaone4Config", {}),
    "olmo": ("OlmoConfig", {}),
    "olmo2": ("Olmo2Config", {}),
    "starcoder2": ("Starcoder2Config", {}),
    "stablelm": ("StableLmConfig", {}),
    "arcee": ("ArceeConfig", {}),
    "ernie4_5": ("Ernie4_5Config", _HEAD_DIM),
    "glm4": ("Glm4Config", _HEAD_DIM),
    "helium": ("HeliumConfig", _HEAD_DIM),
    "nemotron": ("NemotronConfig", {}),
    "apertus": ("ApertusConfig", {}),
    "glm": ("GlmConfig", _HEAD_DIM),
    "granitemoeshared": ("GraniteMoeSharedConfig", {**_GRANITE, **_MOE, "shared_intermediate_size": 32}),
    "granitemoehybrid": ("GraniteMoeHybridConfig", {**_GRANITE, **_HYBRID}),
    "hunyuan_v1_dense": ("HunYuanDenseV1Config", _HEAD_DIM),
    "lfm2": ("Lfm2Config", {"layer_types": ["conv", "full_attention"]}),
    "ministral3": ("Ministral3Config", _HEAD_DIM),
    "olmo3": ("Olmo3Config", {}),
    "seed_oss": ("SeedOssConfig", _HEAD_DIM),
}
#: Multimodal configuration class, settings of the text part, settings of the whole.
NESTED_KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "qwen3_vl": ("Qwen3VLConfig", {**_HEAD_DIM, **_MROPE}, {"vision_config": _QWEN_VISION}),
    "qwen3_5": ("Qwen3_5Config", {**_HEAD_DIM, **_MROPE, **_LINEAR_ATTENTION}, {"vision_config": _QWEN_VISION}),
    "qwen2_vl": ("Qwen2VLConfig", _MROPE, {"vision_config": _QWEN2_VISION}),
    "qwen2_5_vl": ("Qwen2_5_VLConfig", _MROPE, {"vision_config": _QWEN_VISION}),
    "gemma3": ("Gemma3Config", _GEMMA3, {"vision_config": _VISION, "mm_tokens_per_image": 4}),
    "mistral3": (
        "Mistral3Config",
        {**_HEAD_DIM, "model_type": "mistral"},
        {"vision_config": {**_VISION, "model_type": "pixtral", "head_dim": 16}},
    ),
}
ALL_KINDS = (*KINDS, *NESTED_KINDS)


def tiny_config(kind: str, *, tied: bool | None = None, **settings: Any) -> Any:
    """A configuration of one of :data:`ALL_KINDS`; ``tied`` None leaves the kind's default."""
    tie = {} if tied is None else {"tie_word_embeddings": tied}
    if kind in KINDS:
        name, own = KINDS[kind]
        return getattr(transformers, name)(**{**_COMMON, **own, **tie, **settings})
    name, text, whole = NESTED_KINDS[kind]
    return getattr(transformers, name)(text_config={**_COMMON, **text, **tie, **settings}, **whole, **tie)


def tiny_model(kind: str, *, tied: bool | None = None, seed: int = 0, **settings: Any) -> Any:
    """A random model whose logits are large enough for a soft-cap to matter and whose biases are not zero."""
    torch.manual_seed(seed)
    factory = transformers.AutoModelForImageTextToText if kind in NESTED_KINDS else transformers.AutoModelForCausalLM
    model = factory.from_config(tiny_config(kind, tied=tied, **settings)).eval()
    with torch.no_grad():
        for parameter in model.get_output_embeddings().parameters():
            parameter.normal_(std=0.4)
    return model


def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer, smaller than the models' vocabulary, that begins every text with BOS."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", BOS)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def save_tiny_model(
    kind: str,
    folder: Path,
    *,
    tied: bool | None = None,
    dtype: torch.dtype = torch.float32,
    shard_size: str = "1GB",
    chat: bool = False,
    **settings: Any,
) -> Path:
    """Save a random model with its tokenizer as a Hugging Face folder.

    Args:
        kind: One of :data:`ALL_KINDS`.
        folder: Created where needed.
        tied: Whether embedding and head are the same; None for the kind's default.
        dtype: Type of the saved weights.
        shard_size: Largest file, as transformers writes it ("20KB").
        chat: Add a chat template.
        settings: Further settings of the (text) configuration.
    """
    model = tiny_model(kind, tied=tied, **settings).to(dtype)
    model.save_pretrained(folder, max_shard_size=shard_size)
    tokenizer = tiny_tokenizer()
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder
