"""Facts of the machine, read from a tree as Linux lays it out, and peaks that are tested for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.platforms.detection import detect
from flashhead_edge.profiling import machine
from flashhead_edge.profiling.peaks import Peak, matrix_operations, stream_bandwidth


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def test_the_clock_is_that_of_frequency_scaling(tmp_path: Path) -> None:
    for core, khz in enumerate((1_500_000, 2_500_000)):
        write(tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", str(khz))
    write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil")
    assert machine.clock_mhz(tmp_path) == pytest.approx(2000)
    assert machine.governor(tmp_path) == "schedutil"


def test_or_that_of_cpuinfo(tmp_path: Path) -> None:
    write(tmp_path / "proc/cpuinfo", "cpu MHz\t\t: 2000.5\n\ncpu MHz\t\t: 3000.5")
    assert machine.clock_mhz(tmp_path) == pytest.approx(2500.5)
    assert machine.governor(tmp_path) is None


def test_or_unknown(tmp_path: Path) -> None:
    assert machine.clock_mhz(tmp_path) is None


def test_the_catalogue_goes_before_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(threads: int) -> Peak:
        raise AssertionError

    monkeypatch.setattr(machine, "stream_bandwidth", refuse)
    known = machine.machine_of(
        detect(try_providers=False), find_platform("raspberry-pi-5"), threads=1, native_kernels=None
    )
    assert (known.bandwidth_gb_s, known.bandwidth_source) == (17, "catalogue")


def test_peaks_are_plausible() -> None:
    """Between a Raspberry Pi under load and a server."""
    bandwidth = stream_bandwidth(2, stream_bytes=32 << 20)
    assert 0.1 < bandwidth.value < 2000
    assert "32 MiB, threads: 2" in bandwidth.source
    assert 0.5 < matrix_operations().value < 20_000
