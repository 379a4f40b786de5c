"""Registration with vLLM: names only, nothing of a model or of a device is imported."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
from importlib import metadata

from flashhead_edge.runtimes.vllm.architectures import PREFIX, STANDARD_ARCHITECTURES
from flashhead_edge.runtimes.vllm.config_rules import carry_over_rules
from flashhead_edge.runtimes.vllm.models import class_name
from flashhead_edge.runtimes.vllm.versions import version_warning

_MODELS = "flashhead_edge.runtimes.vllm.models"
_REFERENCE = "flash-head"
_GROUP = "vllm.general_plugins"
_logger = logging.getLogger("vllm.flashhead_edge")


def register_architectures() -> None:
    """Register every ``FlashHead`` architecture whose standard one the installed vLLM has.

    Registering again changes nothing. An architecture that another plugin registered before is left to it, and said so.
    """
    import vllm
    from vllm import ModelRegistry

    known = ModelRegistry.models
    foreign = []
    for standard in STANDARD_ARCHITECTURES:
        name = PREFIX + standard
        if standard not in known:
            _logger.debug("this vLLM has no %s, so there is no %s", standard, name)
        elif name not in known:
            ModelRegistry.register_model(name, f"{_MODELS}:{class_name(standard, vllm.__version__)}")
        elif getattr(known[name], "module_name", None) != _MODELS:
            foreign.append(name)
    carry_over_rules()
    for warning in (version_warning(vllm.__version__), _clash(foreign)):
        if warning:
            _warn_once(warning)


@functools.cache
def _warn_once(warning: str) -> None:
    """Warn in the process that was started; vLLM registers in each of its own processes too."""
    if multiprocessing.parent_process() is None:
        _logger.warning("%s", warning)


def _clash(foreign: list[str]) -> str | None:
    """What to say of the reference plugin, or None where vLLM does not load it."""
    if not foreign and not _is_loaded(_REFERENCE):
        return None
    return (
        f"Another plugin, {_REFERENCE}, is installed too, and both answer to the same architectures. It replaces "
        f"vLLM's sampler, and may break every model that is served. What to do: pip uninstall {_REFERENCE}, or name "
        "the plugin to use in VLLM_PLUGINS (ours is flashhead_edge)."
        + (f" It was first to register {', '.join(foreign)}." if foreign else "")
    )


def _is_loaded(distribution: str) -> bool:
    """Whether vLLM loads the plugins of a distribution."""
    wanted = os.environ.get("VLLM_PLUGINS")
    return any(
        point.dist is not None
        and point.dist.metadata["Name"].lower().replace("_", "-") == distribution
        and (wanted is None or point.name in wanted.split(","))
        for point in metadata.entry_points(group=_GROUP)
    )
