"""JetPack releases: which L4T release belongs to which, and what each ships."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ARCHIVE = "https://developer.nvidia.com/embedded/jetpack-archive"
_JETSON_STATS = "https://github.com/rbonghi/jetson_stats"
_L4T_LINE = re.compile(r"R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)")
_VERSION = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True)
class JetPackRelease:
    """A JetPack release.

    Attributes:
        l4t: Release of Jetson Linux (L4T), such as "36.4.3".
        jetpack: Version of JetPack, such as "6.2".
        tensorrt: Major and minor version of the TensorRT that it ships; None where we have no source.
        sources: Where that is written.
    """

    l4t: str
    jetpack: str
    tensorrt: str | None
    sources: tuple[str, ...]


_META_TEGRA = "https://github.com/OE4T/meta-tegra"

#: Releases in order of their L4T version. A revision that is not here has no known JetPack version: a neighbour's
#: would be a guess.
RELEASES = (
    JetPackRelease("32.7.1", "4.6.1", None, (_ARCHIVE, f"{_JETSON_STATS}/issues/515")),
    JetPackRelease("35.1.0", "5.0.2", None, (_ARCHIVE,)),
    JetPackRelease("35.2.1", "5.1", "8.5", (_ARCHIVE,)),
    JetPackRelease("35.3.1", "5.1.1", "8.5", (_ARCHIVE, f"{_JETSON_STATS}/issues/400")),
    JetPackRelease("35.4.1", "5.1.2", "8.5", (_ARCHIVE, f"{_JETSON_STATS}/issues/598")),
    JetPackRelease("35.5.0", "5.1.3", "8.5", (_ARCHIVE,)),
    JetPackRelease(
        "35.6.0",
        "5.1.4",
        "8.5",
        (_ARCHIVE, "https://github.com/SnapDragonfly/jetson-fpv/blob/master/doc/TESTENV.md"),
    ),
    JetPackRelease("35.6.1", "5.1.5", "8.5", (_ARCHIVE,)),
    JetPackRelease("36.2.0", "6.0 DP", "8.6", (_ARCHIVE, f"{_JETSON_STATS}/issues/476")),
    JetPackRelease("36.3.0", "6.0", "8.6", (_ARCHIVE, "https://developer.nvidia.com/embedded/jetpack-sdk-60")),
    JetPackRelease("36.4.0", "6.1", "10.3", (_ARCHIVE, f"{_META_TEGRA}-community/pull/136")),
    JetPackRelease("36.4.3", "6.2", "10.3", (_ARCHIVE, f"{_JETSON_STATS}/issues/603")),
    JetPackRelease("36.4.4", "6.2.1", "10.3", (_ARCHIVE, f"{_JETSON_STATS}/issues/672")),
    JetPackRelease(
        "36.4.7",
        "6.2.1",
        "10.3",
        ("https://github.com/dusty-nv/jetson-containers/blob/master/jetson_containers/l4t_version.py",),
    ),
    JetPackRelease("36.5.0", "6.2.2", "10.3", (_ARCHIVE,)),
    JetPackRelease("38.2.0", "7.0", "10.13", (_ARCHIVE,)),
    JetPackRelease("38.2.1", "7.0", "10.13", (_ARCHIVE,)),
    JetPackRelease(
        "38.4.0",
        "7.1",
        "10.13",
        (
            "https://developer.nvidia.com/embedded/jetpack/downloads/archive-7.1",
            "https://github.com/NVIDIA/jetson-gpio/issues/135",
        ),
    ),
    JetPackRelease("39.2.0", "7.2", "10.16", (_ARCHIVE, f"{_META_TEGRA}/pull/2224", f"{_META_TEGRA}/pull/2281")),
    JetPackRelease("39.2.1", "7.2.1", "10.16", (_ARCHIVE, f"{_META_TEGRA}/pull/2339")),
)

#: First JetPack on which TensorRT 11 runs, from 11.4.1 on, on AGX Orin and Thor only.
TENSORRT_11_JETPACK = "7.2.2"


def parse_l4t(text: str) -> str | None:
    """Read the release from /etc/nv_tegra_release.

    Args:
        text: The file's text; its first line is ``# R36 (release), REVISION: 4.3, GCID: ...``.

    Returns:
        A version of three numbers such as "36.4.3"; None where there is none.
    """
    match = _L4T_LINE.search(text)
    return normal_l4t(f"{match[1]}.{match[2]}") if match else None


def normal_l4t(version: str) -> str:
    """A version with three numbers: "38.4" is "38.4.0"."""
    numbers = version.split(".")
    return ".".join([*numbers, *["0"] * (3 - len(numbers))])


def jetpack_of_l4t(l4t: str) -> str | None:
    """The JetPack version that came with an L4T release; None for one that is not in the table."""
    return next((release.jetpack for release in RELEASES if release.l4t == normal_l4t(l4t)), None)


def tensorrt_of_jetpack(jetpack: str) -> str | None:
    """Major and minor version of the TensorRT that a JetPack ships, of the newest release up to it in its series."""
    number = version_numbers(jetpack)
    series = [
        release for release in RELEASES if release.tensorrt and version_numbers(release.jetpack)[:1] == number[:1]
    ]
    known = [release for release in series if version_numbers(release.jetpack) <= number]
    return known[-1].tensorrt if known else None


def version_numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (6, 2) of "6.2+b77"; empty where there are none."""
    match = _VERSION.match(version)
    return tuple(int(number) for number in match[0].split(".")) if match else ()
