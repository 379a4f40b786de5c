"""Model classes: the standard class of vLLM, with the head's method replaced. Each is made when it is asked for."""

from __future__ import annotations

import re
from typing import Any

from flashhead_edge.runtimes.vllm.architectures import PREFIX, STANDARD_ARCHITECTURES
from flashhead_edge.runtimes.vllm.dense_path import DENSE_PATH

_classes: dict[str, type[Any]] = {}


class FlashHeadMixin:
    """Stands before a standard class of vLLM, and gives its head two stages.

    Attributes:
        dense_reason: Why this model has the dense head for good, or None.
    """

    dense_reason: str | None

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        from flashhead_edge.runtimes.vllm.settings import DISABLED, read_settings

        # First: what is wrong with the files is said before memory is taken.
        settings = read_settings(vllm_config.model_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        if settings is None:
            self.dense_reason = DISABLED
        else:
            from flashhead_edge.runtimes.vllm.head_method import install

            self.dense_reason = install(self, settings, vllm_config.model_config)

    def compute_logits(self, hidden_states: Any, *arguments: Any, **options: Any) -> Any:
        """As the standard class; rows of a model that is dense for good are counted here."""
        if self.dense_reason is not None:
            DENSE_PATH.take(self.dense_reason, len(hidden_states))
        return super().compute_logits(hidden_states, *arguments, **options)  # type: ignore[misc]


def class_name(standard: str, version: str) -> str:
    """Name of a class, to register.

    vLLM keeps what it learnt of a class on disk by name, and finds it outdated by the plugin's file only: the name says
    the version of vLLM, so that another one looks again.

    Args:
        standard: Standard architecture.
        version: vLLM's version.
    """
    return f"{PREFIX}{standard}__{re.sub(r'[^0-9A-Za-z]+', '_', version)}"


def __getattr__(name: str) -> type[Any]:
    """The class of a ``FlashHead`` architecture, by its name or that of :func:`class_name`."""
    name, _, _ = name.partition("__")
    standard = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or standard not in STANDARD_ARCHITECTURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _classes:
        from vllm import ModelRegistry

        base = ModelRegistry.models[standard].load_model_cls()
        _classes[name] = type(name, (FlashHeadMixin, base), {"__module__": __name__, "__doc__": base.__doc__})
    return _classes[name]
