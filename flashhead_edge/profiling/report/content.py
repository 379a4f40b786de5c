"""What a report is made of: profiles, measured or predicted, and rows of ``bench``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flashhead_edge.bench.options import BenchRow
from flashhead_edge.errors import ProfileError
from flashhead_edge.profiling.record import HeadPoint, Profile


@dataclass(frozen=True)
class Content:
    """What a report shows.

    Attributes:
        profiles: At least one; the first is what the report is about.
        rows: Decoding tests of ``bench``, other heads over the same body among them.

    Raises:
        ProfileError: There is no profile, or profiles are of different models.
    """

    profiles: tuple[Profile, ...]
    rows: tuple[BenchRow, ...] = ()

    def __post_init__(self) -> None:
        if not self.profiles:
            raise ProfileError("A report needs a profile.", hint="profile a bundle, or name saved profiles with --from")
        names = {profile.model.name for profile in self.profiles} | {row.model for row in self.rows}
        if len(names) > 1:
            raise ProfileError("A report is about one model.", found=", ".join(sorted(names)))

    @property
    def main(self) -> Profile:
        """The profile that the report is about."""
        return self.profiles[0]

    @property
    def single(self) -> tuple[BenchRow, ...]:
        """Rows of one text at a time, the longest test of each head."""
        found: dict[str, BenchRow] = {}
        for row in self.rows:
            if row.batch == 1 and row.test.startswith("tg") and row.threads == (self.main.threads or row.threads):
                found[row.head] = row
        return tuple(found.values())

    def points(self, varied: str, *, measured: bool) -> tuple[HeadPoint, ...]:
        """Points of a series, from the first profile of the kind that has it.

        Args:
            varied: Name of the series.
            measured: Whether measured or predicted ones.
        """
        for profile in self.profiles:
            found = tuple(point for point in profile.head_points if point.varied == varied)
            if found and profile.measured == measured:
                return found
        return ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before comparing figures."""
        machine = self.main.machine.processor
        others = {profile.machine.processor for profile in self.profiles if profile.measured} - {machine}
        others |= {row.cpu_model for row in self.rows} - {machine}
        warnings = [f"Some figures were measured on {name}, not on {machine}." for name in sorted(others)]
        if any(row.heavy_load for row in self.rows):
            warnings.append("Other programs kept the processor busy while heads were compared.")
        return tuple(warnings)


def read_rows(path: Path) -> tuple[BenchRow, ...]:
    """Read what ``bench --json`` wrote.

    Args:
        path: The file.

    Returns:
        Its rows.

    Raises:
        ProfileError: The file is something else.
    """
    try:
        return tuple(BenchRow(**row) for row in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ProfileError(
            f"{path.name} does not hold rows of bench.",
            found=f"{type(error).__name__}: {error}",
            hint="write them with: flashhead-edge bench BUNDLE --json -o FILE",
        ) from error


def label_of(profile: Profile, all_profiles: Sequence[Profile]) -> str:
    """A name that tells a profile from the others of a report.

    Args:
        profile: One of them.
        all_profiles: All of them.
    """
    label = f"{profile.model.head} head"
    if len({(item.platform, item.machine.processor) for item in all_profiles}) > 1:
        label += f", {profile.platform or profile.machine.processor}"
    if len({item.threads for item in all_profiles if item.measured}) > 1 and profile.measured:
        label += f", {profile.threads} threads"
    return label
