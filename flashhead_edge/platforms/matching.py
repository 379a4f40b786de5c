"""Which platform of the catalogue a device is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from flashhead_edge.platforms.catalog import Platform, load_catalog
from flashhead_edge.platforms.detection import DeviceFacts
from flashhead_edge.platforms.jetson import JetsonFacts

#: Part of a Jetson's model -> beginning of the platform's name; the first that fits counts.
_BOARDS = (
    ("orin nano", "jetson-orin-nano"),
    ("orin nx", "jetson-orin-nx"),
    ("agx orin", "jetson-agx-orin"),
    ("thor", "jetson-agx-thor"),
    ("xavier nx", "jetson-xavier-nx"),
    ("agx xavier", "jetson-agx-xavier"),
)
_GIB = 1 << 30
#: Share of a board's memory that the system may keep for itself.
_KEPT = 0.25


@dataclass(frozen=True)
class PlatformMatch:
    """The platform of a device.

    Attributes:
        name: Name in the catalogue; None where none fits.
        reason: Why this one, or why none.
    """

    name: str | None
    reason: str


def match_platform(facts: DeviceFacts, platforms: Iterable[Platform] | None = None) -> PlatformMatch:
    """Find the platform of the catalogue that a device is.

    Args:
        facts: The device.
        platforms: The catalogue; the package's own by default.
    """
    known = list(load_catalog().platforms.values()) if platforms is None else list(platforms)
    if facts.jetson is not None:
        return _match_jetson(facts.jetson, facts.host.memory_bytes, known)
    for gpu in facts.nvidia.gpus:
        return _match_gpu(gpu.name or "", gpu.memory_bytes, known)
    return _match_cpu(facts, known)


def _match_jetson(jetson: JetsonFacts, memory: int | None, known: list[Platform]) -> PlatformMatch:
    """By the board's name, its memory, and whether it has a Super power mode."""
    model = (jetson.model or "").lower()
    beginning = next((name for part, name in _BOARDS if part in model), None)
    if beginning is None:
        return PlatformMatch(None, f"the catalogue has no board like {jetson.model or 'this one'}")
    found = [item for item in known if item.name.startswith(beginning)]
    sized = [item for item in found if _has_memory(item, memory)]
    if not sized:
        return PlatformMatch(None, f"the memory is that of none of {', '.join(item.name for item in found)}")
    modes = " ".join([*(jetson.power_modes or {}).values(), jetson.power_mode.name or "" if jetson.power_mode else ""])
    is_super = "super" in model or "SUPER" in modes
    best = [item for item in sized if item.name.endswith("-super") == is_super] or sized
    kind = " with a Super power mode" if best[0].name.endswith("-super") else ""
    return PlatformMatch(best[0].name, f"the board calls itself {jetson.model}{kind}")


def _match_gpu(name: str, memory: int | None, known: list[Platform]) -> PlatformMatch:
    """By the words of the GPU's name."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    if "gb10" in words:
        words |= {"dgx", "spark"}
    fitting = []
    for item in known:
        parts = [part for part in item.name.split("-") if part != "nvidia" and not part.endswith("gb")]
        if item.compute_capability and set(parts) <= words and _has_memory(item, memory, exact=False):
            fitting.append((len(parts), item))
    if not fitting:
        return PlatformMatch(None, f"the catalogue has no GPU like {name or 'this one'}")
    best = max(fitting, key=lambda pair: pair[0])[1]
    return PlatformMatch(best.name, f"the GPU calls itself {name}")


def _match_cpu(facts: DeviceFacts, known: list[Platform]) -> PlatformMatch:
    """By the board, or the most instructions that a platform of CPUs names and the processor has."""
    host = facts.host
    if "raspberry pi 5" in host.cpu_model.lower():
        return PlatformMatch("raspberry-pi-5", f"the board calls itself {host.cpu_model}")
    have = set(host.isa_features)
    fitting = [item for item in known if item.family == "cpu" and item.isa_features and set(item.isa_features) <= have]
    fitting = [item for item in fitting if item.name.startswith("x86") == (host.architecture == "x86_64")]
    if not fitting:
        return PlatformMatch(None, f"the catalogue has no {host.architecture} processor with these instructions")
    best = max(fitting, key=lambda item: len(item.isa_features))
    return PlatformMatch(best.name, "the processor has all of its instructions, and of no greater set")


def _has_memory(item: Platform, memory: int | None, *, exact: bool = True) -> bool:
    """Whether a device with so much memory can be the platform: a system shows less than there is."""
    if memory is None or item.memory_bytes is None:
        return True
    if exact:
        return (1 - _KEPT) * item.memory_bytes <= memory <= item.memory_bytes + _GIB // 2
    return abs(memory - item.memory_bytes) <= 0.2 * item.memory_bytes
