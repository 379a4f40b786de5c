"""Where a model of vLLM keeps its head, and what vLLM has put around it."""

from __future__ import annotations

from typing import Any


def head_of(model: Any) -> Any:
    """The module that makes logits, or None for a stage of a pipeline that has none.

    Args:
        model: A model of vLLM.
    """
    owner = _owner(model)
    head = owner.lm_head if hasattr(owner, "lm_head") else owner.model.embed_tokens
    return head if hasattr(head, "quant_method") else None


def two_stage_methods(model: Any) -> list[Any]:
    """The methods of the model's modules that score in two stages.

    Args:
        model: A model of vLLM.
    """
    methods = (getattr(module, "quant_method", None) for module in model.modules())
    return list({id(method): method for method in methods if hasattr(method, "named_rows")}.values())


def adapter_layer(model: Any) -> Any:
    """The layer through which LoRA adapters change the head, or None.

    Args:
        model: A model of vLLM, after it was given LoRA layers.
    """
    layer = getattr(_owner(model), "logits_processor", None)
    return layer if hasattr(layer, "set_lora") else None


def _owner(model: Any) -> Any:
    """The model that has the head; a multimodal one has it inside."""
    return model if hasattr(model, "logits_processor") else getattr(model, "language_model", model)
