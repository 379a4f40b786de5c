"""Jetson boards: what the device tree, L4T, dpkg and nvpmodel say of themselves in files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flashhead_edge.platforms.jetpack import jetpack_of_l4t, normal_l4t, parse_l4t
from flashhead_edge.platforms.system_files import read_text

_MODEL = "proc/device-tree/model"
_COMPATIBLE = "proc/device-tree/compatible"
_L4T_RELEASE = "etc/nv_tegra_release"
_DPKG_STATUS = "var/lib/dpkg/status"
_POWER_STATUS = "var/lib/nvpmodel/status"
_POWER_CONF = "etc/nvpmodel.conf"

_POWER_MODE = re.compile(r"pmode:\s*(\d+)")
_POWER_MODEL = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", re.MULTILINE)
_POWER_DEFAULT = re.compile(r"^<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>", re.MULTILINE)
_SOC = re.compile(r"nvidia,(tegra\d+)$")
_MODULE = re.compile(r"\b(p\d{4})-")
#: System on a chip of a module: not every listing of a device tree goes on to it. The numbers are those of NVIDIA's
#: EEPROM layout: https://docs.nvidia.com/jetson/archives/r36.4/DeveloperGuide/HR/JetsonEepromLayout.html
_SOC_OF_MODULE = {
    "p2888": "tegra194",
    "p3668": "tegra194",
    "p3701": "tegra234",
    "p3767": "tegra234",
    "p3834": "tegra264",
}

#: CUDA compute capability of a system on a chip, as NVIDIA lists it: https://developer.nvidia.com/cuda-gpus
COMPUTE_CAPABILITY = {"tegra210": "5.3", "tegra186": "6.2", "tegra194": "7.2", "tegra234": "8.7", "tegra264": "11.0"}


@dataclass(frozen=True)
class PowerMode:
    """The power mode of a Jetson: it caps clocks and switches cores off, so every timing depends on it.

    Attributes:
        id: Number that ``nvpmodel -m`` takes.
        name: Its name in nvpmodel.conf, such as "MAXN" or "15W".
        is_default: The status file is missing, and this is the mode that the board starts in.
    """

    id: int | None
    name: str | None
    is_default: bool = False


@dataclass(frozen=True)
class JetsonFacts:
    """A Jetson board.

    Attributes:
        model: What the device tree calls it, such as "NVIDIA Jetson AGX Orin Developer Kit".
        compatible: Carrier and module numbers and the system on a chip, most specific first.
        soc: System on a chip, such as "tegra234".
        compute_capability: CUDA compute capability of its GPU.
        l4t: Release of Jetson Linux, such as "36.4.3".
        jetpack: Version of JetPack.
        jetpack_source: "dpkg" (the package nvidia-jetpack is installed), "l4t" (by table) or "override".
        tensorrt: Version of the TensorRT that JetPack installed, from dpkg.
        power_mode: The power mode; None where nvpmodel left no trace.
        power_modes: Names of all modes by their number.
    """

    model: str | None = None
    compatible: tuple[str, ...] = ()
    soc: str | None = None
    compute_capability: str | None = None
    l4t: str | None = None
    jetpack: str | None = None
    jetpack_source: str | None = None
    tensorrt: str | None = None
    power_mode: PowerMode | None = None
    power_modes: Mapping[int, str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON takes them."""
        modes = {str(number): name for number, name in (self.power_modes or {}).items()}
        return {**asdict(self), "compatible": list(self.compatible), "power_modes": modes}


def jetson_facts(root: Path = Path("/")) -> JetsonFacts | None:
    """Look at the files of a Jetson.

    Args:
        root: Root of the file system.

    Returns:
        What they say; None where they do not speak of a Jetson.
    """
    model = read_text(root / _MODEL).strip("\0\n ") or None
    compatible = tuple(name.strip() for name in read_text(root / _COMPATIBLE).split("\0") if name.strip())
    soc = soc_of(compatible)
    packages = parse_dpkg_status(read_text(root / _DPKG_STATUS))
    l4t = parse_l4t(read_text(root / _L4T_RELEASE)) or _l4t_of_package(packages.get("nvidia-l4t-core"))
    if l4t is None and soc is None and "jetson" not in (model or "").lower():
        return None
    jetpack, jetpack_source = find_jetpack(l4t, packages.get("nvidia-jetpack"))
    conf = read_text(root / _POWER_CONF)
    return JetsonFacts(
        model=model,
        compatible=compatible,
        soc=soc,
        compute_capability=COMPUTE_CAPABILITY.get(soc or ""),
        l4t=l4t,
        jetpack=jetpack,
        jetpack_source=jetpack_source,
        tensorrt=_tensorrt_of(packages),
        power_mode=parse_power_mode(read_text(root / _POWER_STATUS), conf),
        power_modes=parse_power_modes(conf) or None,
    )


def soc_of(compatible: tuple[str, ...]) -> str | None:
    """The system on a chip among the device tree's compatible strings, or else that of the module among them."""
    named = (match[1] for name in compatible if (match := _SOC.match(name)))
    modules = (module for name in compatible for module in _MODULE.findall(name))
    return next(named, None) or next((_SOC_OF_MODULE[module] for module in modules if module in _SOC_OF_MODULE), None)


def find_jetpack(l4t: str | None, package_version: str | None) -> tuple[str | None, str | None]:
    """Version of JetPack and where it comes from: the package nvidia-jetpack, or else the table of L4T releases.

    Args:
        l4t: Release of L4T.
        package_version: Version of the package, such as "6.2+b77".
    """
    if package_version:
        return re.split(r"[+-]", package_version, maxsplit=1)[0], "dpkg"
    jetpack = jetpack_of_l4t(l4t) if l4t else None
    return jetpack, "l4t" if jetpack else None


def parse_power_modes(conf: str) -> dict[int, str]:
    """Names of the power modes in nvpmodel.conf by their number."""
    return {int(number): name for number, name in _POWER_MODEL.findall(conf)}


def parse_power_mode(status: str, conf: str) -> PowerMode | None:
    """The power mode that is set, or else the one that the board starts in.

    Args:
        status: Text of /var/lib/nvpmodel/status, such as ``pmode:0002`` or ``pmode:0002 fmode:quiet``.
        conf: Text of /etc/nvpmodel.conf.
    """
    modes = parse_power_modes(conf)
    for pattern, text, is_default in ((_POWER_MODE, status, False), (_POWER_DEFAULT, conf, True)):
        match = pattern.search(text)
        if match:
            number = int(match[1])
            return PowerMode(number, modes.get(number), is_default)
    return None


def parse_dpkg_status(text: str) -> dict[str, str]:
    """Versions of the installed packages in /var/lib/dpkg/status; removed ones whose settings remain do not count."""
    versions = {}
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed") and "Package" in fields and "Version" in fields:
            versions[fields["Package"]] = fields["Version"]
    return versions


def _l4t_of_package(version: str | None) -> str | None:
    """The release in the version of nvidia-l4t-core, "35.3.1-20230319081403"."""
    return normal_l4t(version.partition("-")[0]) if version else None


def _tensorrt_of(packages: Mapping[str, str]) -> str | None:
    """Version of TensorRT in the version of its library's package, such as "10.3.0.30-1+cuda12.5"."""
    libraries = sorted(name for name in packages if re.fullmatch(r"libnvinfer\d+", name))
    return packages[libraries[-1]].partition("-")[0] if libraries else None
