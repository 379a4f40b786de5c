from __future__ import annotations

import pytest

from flashhead_edge.platforms.jetpack import (
    RELEASES,
    jetpack_of_l4t,
    parse_l4t,
    tensorrt_of_jetpack,
    version_numbers,
)
from flashhead_edge.platforms.jetson import (
    PowerMode,
    find_jetpack,
    jetson_facts,
    parse_dpkg_status,
    parse_power_mode,
    parse_power_modes,
)

CONF = """# comment < POWER_MODEL ID=9 NAME=NOT_THIS >
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online

< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >

< PM_CONFIG DEFAULT=1 >
"""
DPKG = """Package: nvidia-jetpack
Status: install ok installed
Architecture: arm64
Version: 6.2+b77
Description: NVIDIA Jetpack Meta Package
 Version: 1.0 of the description

Package: libnvinfer10
Status: install ok installed
Version: 10.3.0.30-1+cuda12.5

Package: nvidia-l4t-core
Status: install ok installed
Version: 35.3.1-20230319081403

Package: tensorrt
Status: deinstall ok config-files
Version: 1.0
"""


@pytest.mark.parametrize(
    ("text", "l4t"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n", "36.4.3"),
        ("# R32 (release), REVISION: 5.1, GCID: 26202423, BOARD: t186ref, EABI: aarch64\n", "32.5.1"),
        ("# R38 (release), REVISION: 4\n", "38.4.0"),
        ("", None),
        ("something else\n", None),
    ],
)
def test_l4t(text, l4t):
    assert parse_l4t(text) == l4t


def test_every_release_has_a_source_and_they_are_in_order():
    assert all(source.startswith("https://") for release in RELEASES for source in release.sources)
    assert all(release.sources for release in RELEASES)
    numbers = [version_numbers(release.l4t) for release in RELEASES]
    assert numbers == sorted(set(numbers))
    assert {len(number) for number in numbers} == {3}


def test_a_release_between_two_known_ones_is_not_guessed():
    assert jetpack_of_l4t("36.4.3") == "6.2"
    assert jetpack_of_l4t("36.4.1") is None
    assert jetpack_of_l4t("38.4") == "7.1"


@pytest.mark.parametrize(
    ("jetpack", "tensorrt"),
    [("5.1.2", "8.5"), ("5.1.6", "8.5"), ("6.0", "8.6"), ("6.2.1", "10.3"), ("7.1", "10.13"), ("4.6.1", None)],
)
def test_tensorrt_of_jetpack(jetpack, tensorrt):
    assert tensorrt_of_jetpack(jetpack) == tensorrt


def test_tensorrt_of_an_unknown_series():
    assert tensorrt_of_jetpack("9.0") is None
    assert tensorrt_of_jetpack("") is None


@pytest.mark.parametrize(
    ("l4t", "package", "expected"),
    [
        ("36.4.3", None, ("6.2", "l4t")),
        ("36.4.3", "6.1+b123", ("6.1", "dpkg")),
        (None, "5.1.1-b56", ("5.1.1", "dpkg")),
        ("36.9.9", None, (None, None)),
        (None, None, (None, None)),
    ],
)
def test_find_jetpack(l4t, package, expected):
    assert find_jetpack(l4t, package) == expected


def test_power_modes():
    assert parse_power_modes(CONF) == {0: "15W", 1: "25W", 2: "MAXN_SUPER"}


@pytest.mark.parametrize(
    ("status", "mode"),
    [
        ("pmode:0002", PowerMode(2, "MAXN_SUPER")),
        ("pmode:0000 fmode:quiet", PowerMode(0, "15W")),
        ("pmode:0009", PowerMode(9, None)),
        ("", PowerMode(1, "25W", is_default=True)),
    ],
)
def test_power_mode(status, mode):
    assert parse_power_mode(status, CONF) == mode


def test_no_power_mode():
    assert parse_power_mode("", "") is None


def test_dpkg_status_counts_only_what_is_installed():
    assert parse_dpkg_status(DPKG) == {
        "nvidia-jetpack": "6.2+b77",
        "libnvinfer10": "10.3.0.30-1+cuda12.5",
        "nvidia-l4t-core": "35.3.1-20230319081403",
    }


def test_a_board_known_by_its_packages_alone(tmp_path):
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(DPKG, encoding="utf-8")
    facts = jetson_facts(tmp_path)
    assert (facts.l4t, facts.jetpack, facts.tensorrt) == ("35.3.1", "6.2", "10.3.0.30")
    assert facts.model is None
