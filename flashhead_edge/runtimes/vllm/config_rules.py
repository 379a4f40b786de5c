"""Adjustments of the configuration that vLLM makes by architecture: those of the standard one, and our worker."""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

from flashhead_edge.runtimes.vllm.architectures import PREFIX, STANDARD_ARCHITECTURES
from flashhead_edge.runtimes.vllm.settings import ENABLED
from flashhead_edge.runtimes.vllm.workers import worker_for

_logger = logging.getLogger("vllm.flashhead_edge")


def carry_over_rules() -> None:
    """Give our architectures the rules that vLLM keeps by the standard names, and our choice of a worker."""
    try:
        from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig
    except ImportError:
        _say_estimates("this vLLM keeps no adjustments by architecture")
        return
    for standard in STANDARD_ARCHITECTURES:
        if PREFIX + standard not in MODELS_CONFIG_MAP:
            MODELS_CONFIG_MAP[PREFIX + standard] = _rule(MODELS_CONFIG_MAP.get(standard, VerifyAndUpdateConfig))


def choose_worker(vllm_config: Any, device: str | None) -> None:
    """Have the engine use the worker that knows which rows name tokens; its base is the platform's own.

    Args:
        vllm_config: vLLM's ``VllmConfig``; ``parallel_config.worker_cls`` is written to.
        device: ``device_type`` of the platform.
    """
    speculative = vllm_config.speculative_config
    if speculative is not None and vllm_config.model_config is not speculative.target_model_config:
        return  # of a draft model: the worker is the target's
    parallel = vllm_config.parallel_config
    worker = worker_for(device)
    if os.environ.get(ENABLED) == "0" or parallel.worker_cls == worker:
        return
    if parallel.worker_cls != "auto":
        _say_estimates(f"the worker class is {parallel.worker_cls}")
    elif worker is None:
        _say_estimates(f"the device is {device}")
    else:
        parallel.worker_cls = worker


def _rule(base: type[Any]) -> type[Any]:
    """The rule of a standard architecture, followed by ours."""

    class FlashHeadConfigRule(base):  # type: ignore[misc]
        """Runs when vLLM completes the configuration, before the platform chooses what is still "auto"."""

        @classmethod
        def verify_and_update_config(cls, vllm_config: Any) -> None:
            from vllm.platforms import current_platform

            super().verify_and_update_config(vllm_config)
            choose_worker(vllm_config, current_platform.device_type)

    return FlashHeadConfigRule


@functools.cache
def _say_estimates(reason: str) -> None:
    _logger.warning(
        "Tokens that a request's grammar, bias or allowed ids name keep estimated logits where their cluster is "
        "closed: %s.",
        reason,
    )
