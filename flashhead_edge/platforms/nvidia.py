"""NVIDIA GPUs: asked of the driver through nvidia-ml-py, which may be missing, as may the driver."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flashhead_edge.platforms.system_files import read_text

_DRIVER_VERSION = "proc/driver/nvidia/version"
_DRIVER_LINE = re.compile(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s")
_NO_PACKAGE = "the package nvidia-ml-py is not installed"


@dataclass(frozen=True)
class GpuFacts:
    """A GPU; None stands for what the driver does not say of it.

    Attributes:
        name: What it calls itself, such as "NVIDIA H100 80GB HBM3".
        memory_bytes: Its memory.
        compute_capability: CUDA compute capability, such as "9.0".
    """

    name: str | None = None
    memory_bytes: int | None = None
    compute_capability: str | None = None


@dataclass(frozen=True)
class NvidiaFacts:
    """The NVIDIA driver and its GPUs.

    Attributes:
        gpus: The GPUs.
        driver_version: Version of the driver; None without one.
        cuda_version: Newest CUDA version that the driver runs.
        unknown_because: Why the driver could not be asked; None where it answered.
    """

    gpus: tuple[GpuFacts, ...] = ()
    driver_version: str | None = None
    cuda_version: str | None = None
    unknown_because: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON takes them."""
        return {**asdict(self), "gpus": [asdict(gpu) for gpu in self.gpus]}


def nvidia_facts(root: Path = Path("/")) -> NvidiaFacts:
    """Ask the NVIDIA driver; a missing driver or package is a fact, not an error.

    Args:
        root: Root of the file system. The driver answers for the machine that runs, so it is only asked for "/".
    """
    module_version = parse_driver_version(read_text(root / _DRIVER_VERSION))
    if root != Path("/"):
        return NvidiaFacts(driver_version=module_version, unknown_because="only files of another root are read")
    try:
        import pynvml
    except ImportError:
        return NvidiaFacts(driver_version=module_version, unknown_because=_NO_PACKAGE)
    return ask_driver(pynvml, module_version)


def ask_driver(pynvml: Any, module_version: str | None = None) -> NvidiaFacts:
    """Read what NVML says.

    Args:
        pynvml: The module of nvidia-ml-py.
        module_version: Version of the kernel module, for when NVML does not start.
    """
    failure: type[Exception] = pynvml.NVMLError

    def ask(question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except failure:
            return None

    try:
        pynvml.nvmlInit()
    except failure as error:
        return NvidiaFacts(driver_version=module_version, unknown_because=f"NVML did not start: {error}")
    try:
        gpus = []
        for index in range(ask(pynvml.nvmlDeviceGetCount) or 0):
            device = ask(pynvml.nvmlDeviceGetHandleByIndex, index)
            if device is None:
                gpus.append(GpuFacts())
                continue
            memory = ask(pynvml.nvmlDeviceGetMemoryInfo, device)
            capability = ask(pynvml.nvmlDeviceGetCudaComputeCapability, device)
            gpus.append(
                GpuFacts(
                    name=_text(ask(pynvml.nvmlDeviceGetName, device)),
                    memory_bytes=int(memory.total) if memory else None,
                    compute_capability=".".join(str(number) for number in capability) if capability else None,
                )
            )
        cuda = ask(pynvml.nvmlSystemGetCudaDriverVersion)
        return NvidiaFacts(
            gpus=tuple(gpus),
            driver_version=_text(ask(pynvml.nvmlSystemGetDriverVersion)) or module_version,
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        )
    finally:
        ask(pynvml.nvmlShutdown)


def parse_driver_version(text: str) -> str | None:
    """Read /proc/driver/nvidia/version: ``NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  ...``."""
    match = _DRIVER_LINE.search(text)
    return match[1] if match else None


def _text(value: str | bytes | None) -> str | None:
    """A string; older releases of nvidia-ml-py give bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
