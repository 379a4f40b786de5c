"""What to install for the best runtime on a device."""

from __future__ import annotations

from dataclasses import dataclass

from flashhead_edge.platforms.detection import DeviceFacts
from flashhead_edge.platforms.jetpack import version_numbers
from flashhead_edge.platforms.packages import installed_onnx_runtimes

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_JETSON_INDEX = "https://pypi.jetson-ai-lab.io/jp6/cu126"


@dataclass(frozen=True)
class Recommendation:
    """The best runtime on a device.

    Attributes:
        runtime: Name of the runtime.
        provider: Execution provider that it should use.
        reason: Why this one.
        install: Commands that install it, in order; empty where it is installed and works.
    """

    runtime: str
    provider: str
    reason: str
    install: tuple[str, ...]


def recommend(facts: DeviceFacts) -> Recommendation:
    """Choose a runtime.

    Args:
        facts: The device.
    """
    provider, package, reason, commands = _choice(facts)
    installed = installed_onnx_runtimes(facts.packages)
    loads = [item.name for item in facts.providers or () if item.loads]
    if installed == [package] and (facts.providers is None or provider in loads):
        return Recommendation("onnxruntime", provider, reason, ())
    wrong = [name for name in installed if name != package or len(installed) > 1]
    uninstall = (f"pip uninstall -y {' '.join(wrong)}",) if wrong else ()
    return Recommendation("onnxruntime", provider, reason, (*uninstall, *commands))


def _choice(facts: DeviceFacts) -> tuple[str, str, str, tuple[str, ...]]:
    """Provider, package, reason and the commands that install it."""
    cpu_commands = ("pip install 'flashhead-edge[cpu]'",)
    gpu_commands = ("pip install 'flashhead-edge[gpu]'",)
    if facts.jetson is not None:
        series = version_numbers(facts.jetson.jetpack or "")[:1]
        if series == (6,):
            commands = (f"pip install onnxruntime-gpu --index-url {_JETSON_INDEX}", "pip install flashhead-edge jinja2")
            return _CUDA, "onnxruntime-gpu", "JetPack 6 has CUDA 12, and builds for it are in NVIDIA's index", commands
        if series and series >= (7,):
            reason = "JetPack 7 has CUDA 13, as the builds on PyPI need; run the doctor again to see that they load"
            return _CUDA, "onnxruntime-gpu", reason, gpu_commands
        named = f"JetPack {facts.jetson.jetpack}" if facts.jetson.jetpack else "this board"
        reason = f"there is no current build of ONNX Runtime with CUDA for {named}"
        return _CPU, "onnxruntime", reason, cpu_commands
    if facts.has_nvidia_gpu:
        return _CUDA, "onnxruntime-gpu", "there is an NVIDIA GPU", gpu_commands
    return _CPU, "onnxruntime", "no GPU that we have a runtime for was found", cpu_commands
