"""Facts given by environment variables: a container often does not see the device that it runs on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flashhead_edge.errors import OptionError

PREFIX = "FLASHHEAD_EDGE_"
#: Value that stands for a thing which is not there, where a fact may be missing.
ABSENT = "none"


@dataclass(frozen=True)
class OverridableFact:
    """A fact that an environment variable can give.

    Attributes:
        path: Where it stands in the report, such as "jetson.l4t".
        parse: Reads the variable; raises ValueError for a value that is none.
        expected: What the variable must hold, with an example.
    """

    path: str
    parse: Callable[[str], Any]
    expected: str


def _pattern(pattern: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(text)
        return text

    return parse


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _providers(text: str) -> tuple[str, ...]:
    names = _names(text)
    if any(not re.fullmatch(r"\w+ExecutionProvider", name) for name in names):
        raise ValueError(text)
    return names


def _versions(text: str) -> dict[str, str]:
    packages = {}
    for item in _names(text):
        name, separator, version = item.partition("=")
        if not (separator and name and re.fullmatch(r"\d[\w.+!-]*", version)):
            raise ValueError(item)
        packages[name] = version
    return packages


def _optional(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text.lower() == ABSENT else parse(text)


_VERSION = _pattern(r"\d+(\.\d+)*")
_BYTES = "a number of bytes, such as 8589934592"

#: What follows the prefix in a variable's name -> the fact.
FACTS: Mapping[str, OverridableFact] = {
    "CPU_MODEL": OverridableFact("host.cpu_model", str, "the processor's name"),
    "ARCHITECTURE": OverridableFact("host.architecture", _pattern(r"\w+"), "a name such as x86_64 or aarch64"),
    "LOGICAL_CORES": OverridableFact("host.logical_cores", _positive, "a number of cores, 1 or more"),
    "ISA_FEATURES": OverridableFact("host.isa_features", _names, "names with commas between, such as asimd,asimddp"),
    "MEMORY_BYTES": OverridableFact("host.memory_bytes", _positive, _BYTES),
    "OS": OverridableFact("host.os", str, "the operating system's name and version"),
    "PYTHON": OverridableFact("host.python", _VERSION, "a version such as 3.11.9"),
    "JETSON_MODEL": OverridableFact("jetson.model", _optional(str), f"the board's name, or {ABSENT} for no Jetson"),
    "JETSON_COMPATIBLE": OverridableFact(
        "jetson.compatible", _names, "names with commas between, without 'nvidia,', such as p3767-0005,tegra234"
    ),
    "L4T": OverridableFact("jetson.l4t", _pattern(r"\d+\.\d+(\.\d+)?"), "a release such as 36.4.3"),
    "JETPACK": OverridableFact("jetson.jetpack", _VERSION, "a version such as 6.2"),
    "JETSON_TENSORRT": OverridableFact("jetson.tensorrt", _optional(_VERSION), f"a version such as 10.3, or {ABSENT}"),
    "POWER_MODE": OverridableFact("jetson.power_mode", _pattern(r"\S+"), "a mode's name, such as MAXN or 15W"),
    "GPU_NAME": OverridableFact("nvidia.gpus.0.name", _optional(str), f"the GPU's name, or {ABSENT} for no GPU"),
    "GPU_MEMORY_BYTES": OverridableFact("nvidia.gpus.0.memory_bytes", _positive, _BYTES),
    "GPU_COMPUTE_CAPABILITY": OverridableFact(
        "nvidia.gpus.0.compute_capability", _pattern(r"\d+\.\d"), "two numbers such as 8.6"
    ),
    "DRIVER_VERSION": OverridableFact(
        "nvidia.driver_version", _optional(_VERSION), f"a version such as 550.54.15, or {ABSENT}"
    ),
    "CUDA_VERSION": OverridableFact("nvidia.cuda_version", _VERSION, "a version such as 12.6"),
    "PACKAGES": OverridableFact(
        "packages", _optional(_versions), f"name=version with commas between, such as onnxruntime=1.20.0, or {ABSENT}"
    ),
    "ONNXRUNTIME_CUDA": OverridableFact(
        "onnxruntime_cuda", _optional(_pattern(r"\d+")), f"a major version of CUDA such as 12, or {ABSENT}"
    ),
    "PROVIDERS": OverridableFact(
        "providers",
        _optional(_providers),
        f"ONNX Runtime's names of providers that load, with commas between, or {ABSENT}",
    ),
}


def read_overrides(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read the facts that the environment gives.

    Args:
        environ: The environment. A variable that is empty counts as not set.

    Returns:
        Values by the fact's path.

    Raises:
        OptionError: A variable holds what its fact cannot be.
    """
    values = {}
    for name, fact in FACTS.items():
        text = environ.get(PREFIX + name, "").strip()
        if not text:
            continue
        try:
            values[fact.path] = fact.parse(text)
        except ValueError as error:
            raise OptionError(
                f"The environment variable {PREFIX}{name} is not a value of {fact.path}.",
                found=text,
                expected=fact.expected,
                hint=f"correct it, or unset it to have it detected (unset {PREFIX}{name})",
            ) from error
    return values


def misspelt_overrides(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that name no fact but look like one that does, with the name that was probably meant."""
    meant = {}
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if name != variable and name not in FACTS:
            close = difflib.get_close_matches(name, FACTS, n=1, cutoff=0.75)
            if close:
                meant[variable] = PREFIX + close[0]
    return meant


def variable_of(path: str) -> str:
    """The environment variable of a fact."""
    return PREFIX + next(name for name, fact in FACTS.items() if fact.path == path)
