"""The architectures that the plugin knows."""

from __future__ import annotations

#: What stands before the name of a standard architecture.
PREFIX = "FlashHead"

#: Standard architectures of vLLM that get a ``FlashHead`` sibling. To add another one, write its name here: its class
#: must keep its head in ``lm_head``, ``language_model.lm_head`` or, if tied, ``model.embed_tokens``.
STANDARD_ARCHITECTURES = (
    "LlamaForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "Qwen3VLForConditionalGeneration",
    "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForCausalLM",
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForConditionalGeneration",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Gemma3ForConditionalGeneration",
    "MistralForCausalLM",
    "Phi3ForCausalLM",
    "GraniteForCausalLM",
    "SmolLM3ForCausalLM",
)
