"""Model classes: the standard class of vLLM, with the head's method replaced. Each is made when it is asked for."""

from __future__ import annotations

from typing import Any

from flashhead_edge.runtimes.vllm.architectures import PREFIX, STANDARD_ARCHITECTURES

_classes: dict[str, type[Any]] = {}


class FlashHeadMixin:
    """Stands before a standard class of vLLM, and gives its head two stages."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        from flashhead_edge.runtimes.vllm.head_method import install
        from flashhead_edge.runtimes.vllm.settings import read_settings

        # First: what is wrong with the files is said before memory is taken.
        settings = read_settings(vllm_config.model_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        if settings is not None:
            install(self, settings, vllm_config.model_config)


def __getattr__(name: str) -> type[Any]:
    """The class of a ``FlashHead`` architecture."""
    standard = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or standard not in STANDARD_ARCHITECTURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _classes:
        from vllm import ModelRegistry

        base = ModelRegistry.models[standard].load_model_cls()
        _classes[name] = type(name, (FlashHeadMixin, base), {"__module__": __name__, "__doc__": base.__doc__})
    return _classes[name]
