"""Two profiles side by side: how many times as long each stage takes, and what else differs between them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from flashhead_edge.profiling.record import STAGES, Profile

#: Facts of the machine that change from moment to moment by themselves, and by how much they may.
_TOLERANCE = {"clock_mhz": 0.05, "bandwidth_gb_s": 0.15, "operations_g_s": 0.25}
#: Fields of a profile, besides the machine's and the model's, that two must share to be compared.
_CIRCUMSTANCES = ("platform", "measured", "runtime", "batch", "threads")
_POSITIONS_TOLERANCE = 0.1


@dataclass(frozen=True)
class StageDifference:
    """A stage, or the whole step, in two profiles.

    Attributes:
        name: The stage, or "step".
        first_ms: Milliseconds in the first; None where it has no such stage.
        second_ms: In the second.
    """

    name: str
    first_ms: float | None
    second_ms: float | None

    @property
    def ratio(self) -> float | None:
        """Second over first: above 1 the second is slower."""
        if self.first_ms is None or self.second_ms is None or self.first_ms <= 0:
            return None
        return self.second_ms / self.first_ms


@dataclass(frozen=True)
class ProfileDifference:
    """What differs between two profiles.

    Attributes:
        stages: Stages in the order of a step, then the step itself.
        energy_ratio: Joules a token, second over first; None where one has none.
        peak_rss_ratio: Peak resident memory, second over first.
        circumstances: What else differs, by name: the values of both.
    """

    stages: tuple[StageDifference, ...]
    energy_ratio: float | None
    peak_rss_ratio: float | None
    circumstances: dict[str, tuple[Any, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        data = asdict(self)
        for stage, item in zip(self.stages, data["stages"], strict=True):
            item["ratio"] = stage.ratio
        return data


def compare_profiles(first: Profile, second: Profile) -> ProfileDifference:
    """Compare two profiles.

    Args:
        first: What the other is compared with.
        second: The other.

    Returns:
        Ratios, and the circumstances that make them more than a change of the software.
    """
    stages = []
    for name in STAGES:
        ours, theirs = first.stage(name), second.stage(name)
        if ours is not None or theirs is not None:
            stages.append(StageDifference(name, ours.ms if ours else None, theirs.ms if theirs else None))
    stages.append(StageDifference("step", first.step_ms, second.step_ms))
    return ProfileDifference(
        tuple(stages),
        _ratio(first.energy_j_per_token, second.energy_j_per_token),
        _ratio(first.memory.peak_rss_bytes, second.memory.peak_rss_bytes),
        _circumstances(first, second),
    )


def _circumstances(first: Profile, second: Profile) -> dict[str, tuple[Any, Any]]:
    """What differs besides the figures."""
    found = {name: (getattr(first, name), getattr(second, name)) for name in _CIRCUMSTANCES}
    for part in ("machine", "model"):
        ours, theirs = getattr(first, part), getattr(second, part)
        for field in fields(ours):
            found[f"{part}.{field.name}"] = (getattr(ours, field.name), getattr(theirs, field.name))
    tolerance = {f"machine.{name}": share for name, share in _TOLERANCE.items()} | {"positions": _POSITIONS_TOLERANCE}
    found["positions"] = (first.positions, second.positions)
    return {name: pair for name, pair in found.items() if not _alike(*pair, tolerance.get(name, 0.0))}


def _alike(first: Any, second: Any, tolerance: float) -> bool:
    if tolerance and first is not None and second is not None:
        return bool(abs(first - second) <= tolerance * max(abs(first), abs(second)))
    return bool(first == second)


def _ratio(first: float | None, second: float | None) -> float | None:
    return second / first if first and second is not None else None
