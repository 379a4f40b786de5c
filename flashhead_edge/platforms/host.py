"""Facts about the machine that we run on: what a measurement has to say about where it was taken.

Nothing here tells one machine from another of its kind: no host name, no path, no serial number.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flashhead_edge.platforms.packages import installed_packages
from flashhead_edge.platforms.system_files import read_text

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_OS_RELEASE = Path("/etc/os-release")
#: Instructions that matrix kernels are chosen by, as Linux names them.
_ISA_FEATURES = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)
#: Distributions whose versions decide how fast things are; the first of a name that is installed counts.
_PACKAGES = {
    "numpy": ("numpy",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "torch": ("torch",),
}


@dataclass(frozen=True)
class HostFacts:
    """A machine and what is installed on it.

    Attributes:
        cpu_model: What the processor calls itself, or its architecture where it does not say.
        architecture: "x86_64", "aarch64", ...
        logical_cores: Cores that this process may use, hardware threads counted.
        isa_features: Those of the instructions that matrix kernels are chosen by, as Linux names them.
        memory_bytes: Memory of the machine; None where the system does not say.
        os: Operating system and its version.
        python: Version of Python.
        packages: Versions of numpy, onnxruntime and torch, where they are installed.
    """

    cpu_model: str
    architecture: str
    logical_cores: int
    isa_features: tuple[str, ...]
    memory_bytes: int | None
    os: str
    python: str
    packages: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON takes them."""
        return {**asdict(self), "isa_features": list(self.isa_features)}


def host_facts(root: Path = Path("/")) -> HostFacts:
    """Look at this machine; nothing is imported or measured, so it takes milliseconds.

    Args:
        root: Root of the file system, from which processor, memory and distribution are read.
    """
    cpu = parse_cpuinfo(_read(root, _CPUINFO))
    return HostFacts(
        cpu_model=cpu.model or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        logical_cores=_usable_cores(),
        isa_features=cpu.features,
        memory_bytes=_memory_bytes(root),
        os=_os_name(root),
        python=platform.python_version(),
        packages=installed_packages(_PACKAGES),
    )


@dataclass(frozen=True)
class CpuInfo:
    """What /proc/cpuinfo says: the model's name, if any, and the features that matter."""

    model: str | None
    features: tuple[str, ...]


def parse_cpuinfo(text: str) -> CpuInfo:
    """Read /proc/cpuinfo of x86 ("model name", "flags") or Arm ("Model" of the board or "Hardware", "Features").

    Args:
        text: The file's text; the first processor counts.

    Returns:
        Model and features.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator and value.strip():
            fields.setdefault(key.strip().lower(), value.strip())
    flags = set(fields.get("flags", fields.get("features", "")).split())
    names = (fields.get(key, "") for key in ("model name", "cpu model", "model", "hardware"))
    model = next((name for name in names if name and not name.isdigit()), None)  # x86 has a numeric "model" too
    return CpuInfo(model, tuple(name for name in _ISA_FEATURES if name in flags))


def _usable_cores() -> int:
    """Cores that the scheduler gives us."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes(root: Path) -> int | None:
    """Memory of the machine in bytes."""
    for line in _read(root, _MEMINFO).splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    if root != Path("/"):
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _os_name(root: Path) -> str:
    """Name of the distribution and the kernel's version without its build."""
    kernel = f"{platform.system()} {platform.release().partition('-')[0]}"
    for line in _read(root, _OS_RELEASE).splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return f"{value.strip().strip(chr(34))}, {kernel}"
    return kernel


def _read(root: Path, path: Path) -> str:
    """Text of a system file below ``root``, empty where there is none."""
    return read_text(root / path.relative_to("/"))
