"""Detection of the device: everything that decides which runtime it can use, in one value."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flashhead_edge.platforms.host import HostFacts, host_facts
from flashhead_edge.platforms.jetpack import jetpack_of_l4t, normal_l4t
from flashhead_edge.platforms.jetson import COMPUTE_CAPABILITY, JetsonFacts, PowerMode, jetson_facts, soc_of
from flashhead_edge.platforms.nvidia import GpuFacts, NvidiaFacts, nvidia_facts
from flashhead_edge.platforms.overrides import misspelt_overrides, read_overrides, variable_of
from flashhead_edge.platforms.packages import installed_packages, onnxruntime_cuda
from flashhead_edge.platforms.providers import ProviderFacts, provider_facts


@dataclass(frozen=True)
class DeviceFacts:
    """A device and what is installed on it; nothing here tells one machine from another of its kind.

    Attributes:
        host: Processor, memory, operating system.
        jetson: The Jetson board; None on anything else.
        nvidia: The NVIDIA driver and its GPUs.
        packages: Versions of the installed packages that execute models.
        onnxruntime_cuda: Major version of the CUDA that the installed onnxruntime-gpu was built for.
        providers: Execution providers of ONNX Runtime; None where they were not looked at.
        overridden: Facts that an environment variable gave, by their path, with the variable's name.
        misspelt: Environment variables that look like one of ours, with the name that was probably meant.
    """

    host: HostFacts
    jetson: JetsonFacts | None = None
    nvidia: NvidiaFacts = field(default_factory=NvidiaFacts)
    packages: Mapping[str, str] = field(default_factory=dict)
    onnxruntime_cuda: str | None = None
    providers: tuple[ProviderFacts, ...] | None = None
    overridden: Mapping[str, str] = field(default_factory=dict)
    misspelt: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON takes them."""
        host = self.host.as_dict()
        del host["packages"]  # they are among ours, together with those that host does not list
        return {
            "host": host,
            "jetson": self.jetson.as_dict() if self.jetson else None,
            "nvidia": self.nvidia.as_dict(),
            "packages": dict(self.packages),
            "onnxruntime_cuda": self.onnxruntime_cuda,
            "providers": None if self.providers is None else [dataclasses.asdict(item) for item in self.providers],
            "overridden": dict(self.overridden),
        }

    @property
    def has_nvidia_gpu(self) -> bool:
        """Whether a GPU that CUDA runs on is there: a Jetson's own, one with a driver, or one that a provider found."""
        found = any(item.loads and item.name == "CUDAExecutionProvider" for item in self.providers or ())
        return found or self.jetson is not None or bool(self.nvidia.gpus) or self.nvidia.driver_version is not None


def detect(
    root: Path = Path("/"), *, environ: Mapping[str, str] | None = None, try_providers: bool = True
) -> DeviceFacts:
    """Look at the device.

    Args:
        root: Root of the file system whose files are read. Cores, architecture, Python and packages are always those
            of this process.
        environ: Environment variables that give facts; those of this process by default.
        try_providers: Run a small model on every execution provider of ONNX Runtime, which takes from half a second to
            minutes.

    Returns:
        The facts.

    Raises:
        OptionError: An environment variable holds what its fact cannot be.
    """
    environ = os.environ if environ is None else environ
    given = read_overrides(environ)
    providers: tuple[ProviderFacts, ...] | None = None
    if "providers" in given:
        providers = tuple(ProviderFacts(name, True) for name in given["providers"] or ())
    elif try_providers:
        providers = provider_facts()
    return DeviceFacts(
        host=replace(host_facts(root), **_given(given, "host")),
        jetson=_override_jetson(jetson_facts(root), _given(given, "jetson")),
        nvidia=_override_nvidia(nvidia_facts(root), _given(given, "nvidia")),
        packages=(given["packages"] or {}) if "packages" in given else installed_packages(),
        onnxruntime_cuda=given["onnxruntime_cuda"] if "onnxruntime_cuda" in given else onnxruntime_cuda(),
        providers=providers,
        overridden={path: variable_of(path) for path in given},
        misspelt=misspelt_overrides(environ),
    )


def _given(given: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The given facts of a section, by their path in it."""
    return {path.partition(".")[2]: value for path, value in given.items() if path.startswith(f"{section}.")}


def _override_jetson(facts: JetsonFacts | None, given: dict[str, Any]) -> JetsonFacts | None:
    """Put given facts in place of detected ones, and what follows from them too."""
    if not given:
        return facts
    if "model" in given and given["model"] is None:
        return None
    facts = facts or JetsonFacts()
    if "compatible" in given:
        given["compatible"] = tuple(name if "," in name else f"nvidia,{name}" for name in given["compatible"])
        given["soc"] = soc_of(given["compatible"])
        given["compute_capability"] = COMPUTE_CAPABILITY.get(given["soc"] or "")
    if "l4t" in given:
        given["l4t"] = normal_l4t(given["l4t"])
    if "jetpack" in given:
        given["jetpack_source"] = "override"
    elif "l4t" in given:
        given["jetpack"] = jetpack_of_l4t(given["l4t"])
        given["jetpack_source"] = "l4t" if given["jetpack"] else None
    if "power_mode" in given:
        name = given["power_mode"]
        number = next((key for key, mode in (facts.power_modes or {}).items() if mode == name), None)
        given["power_mode"] = PowerMode(number, name)
    return replace(facts, **given)


def _override_nvidia(facts: NvidiaFacts, given: dict[str, Any]) -> NvidiaFacts:
    """Put given facts in place of detected ones; those of a GPU are of the first."""
    if not given:
        return facts
    first = {path.rpartition(".")[2]: given.pop(path) for path in list(given) if path.startswith("gpus.")}
    gpus = facts.gpus
    if "name" in first and first["name"] is None:
        gpus = ()
    elif first:
        gpus = (replace(gpus[0] if gpus else GpuFacts(), **first), *gpus[1:])
    return replace(facts, gpus=gpus, **given)
