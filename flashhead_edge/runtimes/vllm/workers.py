"""Workers of vLLM that tell the head which rows of a step name tokens: the standard worker of each device, extended.

vLLM takes a worker by name (``worker_cls``), per engine, so those of other models are other classes. Each class is made
when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

#: Module of each standard worker that is extended.
_MODULES = {
    "CPUWorker": "vllm.v1.worker.cpu_worker",
    "Worker": "vllm.v1.worker.gpu_worker",
    "XPUWorker": "vllm.v1.worker.xpu_worker",
}
_OF_DEVICE = {"cpu": "CPUWorker", "cuda": "Worker", "xpu": "XPUWorker"}
_classes: dict[str, type[Any]] = {}


def worker_for(device: str | None) -> str | None:
    """Qualified name of our worker.

    Args:
        device: ``device_type`` of vLLM's platform; ROCm calls itself "cuda" too.

    Returns:
        The name, or None where the platform has a worker that is not known here.
    """
    return f"{__name__}.{_OF_DEVICE[device]}" if device in _OF_DEVICE else None


class NamedRowsWorker:
    """Stands before a standard worker, and connects its runner with the head."""

    model_runner: Any

    def load_model(self, *arguments: Any, **options: Any) -> None:
        """As the standard worker; then the head learns from the runner which rows name tokens."""
        from flashhead_edge.runtimes.vllm.named_rows import attach

        super().load_model(*arguments, **options)  # type: ignore[misc]
        attach(self.model_runner)


def __getattr__(name: str) -> type[Any]:
    """The extended worker of a name."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _classes:
        base = getattr(importlib.import_module(_MODULES[name]), name)
        _classes[name] = type(name, (NamedRowsWorker, base), {"__module__": __name__, "__doc__": base.__doc__})
    return _classes[name]
