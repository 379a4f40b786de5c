"""Registration with vLLM: names only, nothing of a model or of a device is imported."""

from __future__ import annotations

import logging
from importlib import metadata
from typing import Any

from flashhead_edge.runtimes.vllm.architectures import PREFIX, STANDARD_ARCHITECTURES

_MODELS = "flashhead_edge.runtimes.vllm.models"
_REFERENCE = "flash-head"
_logger = logging.getLogger("vllm.flashhead_edge")


def register_architectures() -> None:
    """Register every ``FlashHead`` architecture whose standard one the installed vLLM has.

    Registering again changes nothing. An architecture that another plugin registered before is left to it, and said so.
    """
    from vllm import ModelRegistry

    known = ModelRegistry.models
    foreign = []
    for standard in STANDARD_ARCHITECTURES:
        name = PREFIX + standard
        if standard not in known:
            _logger.debug("this vLLM has no %s, so there is no %s", standard, name)
        elif name not in known:
            ModelRegistry.register_model(name, f"{_MODELS}:{name}")
        elif getattr(known[name], "module_name", None) != _MODELS:
            foreign.append(name)
    _carry_over_config_rules()
    if foreign or _is_installed(_REFERENCE):
        _logger.warning(
            "Another plugin, %s, is installed too, and both answer to the same architectures. It replaces vLLM's "
            "sampler, and may break every model that is served. What to do: pip uninstall %s, or name the plugin to "
            "use in VLLM_PLUGINS (ours is flashhead_edge).%s",
            _REFERENCE,
            _REFERENCE,
            f" It was first to register {', '.join(foreign)}." if foreign else "",
        )


def _carry_over_config_rules() -> None:
    """Give our architectures the adjustments of the configuration that vLLM keeps by the standard names."""
    try:
        from vllm.model_executor.models.config import MODELS_CONFIG_MAP
    except ImportError:
        _logger.debug("this vLLM keeps no adjustments by architecture")
        return
    rules: dict[str, Any] = MODELS_CONFIG_MAP
    for standard in STANDARD_ARCHITECTURES:
        if standard in rules:
            rules.setdefault(PREFIX + standard, rules[standard])


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
