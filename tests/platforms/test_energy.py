"""Counters under a fake root: paths and units as the kernel documents them (powercap, hwmon sysfs interface)."""

from __future__ import annotations

import time

import pytest

from flashhead_edge.platforms.energy import Ina3221Meter, RaplMeter, open_energy_meter


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


@pytest.fixture
def packages(tmp_path):
    zones = [tmp_path / f"sys/class/powercap/intel-rapl:{number}" for number in range(2)]
    for number, zone in enumerate(zones):
        write(zone / "name", f"package-{number}")
        write(zone / "energy_uj", 1_000_000)
        write(zone / "max_energy_range_uj", 10_000_000)
    core = tmp_path / "sys/class/powercap/intel-rapl:0:0"
    write(core / "name", "core")
    write(core / "energy_uj", 500)
    return zones


def test_packages_are_summed_and_counters_wrap(tmp_path, packages):
    meter = open_energy_meter(tmp_path)
    assert isinstance(meter, RaplMeter)
    assert meter.source == "RAPL, 2 packages"
    write(packages[0] / "energy_uj", 3_000_000)
    assert meter.joules() == pytest.approx(2.0)
    write(packages[1] / "energy_uj", 500_000)  # from 1 J over 10 J to 0.5 J
    assert meter.joules() == pytest.approx(2.0 + 9.5)
    meter.close()


def test_a_board_rail_is_preferred_and_integrated(tmp_path, packages):
    chip = tmp_path / "sys/class/hwmon/hwmon3"
    for number, rail in ((1, "VDD_IN"), (2, "VDD_CPU_GPU_CV")):
        write(chip / f"in{number}_label", rail)
        write(chip / f"in{number}_input", 5000)
        write(chip / f"curr{number}_input", 2000 // number)
    meter = open_energy_meter(tmp_path)
    assert isinstance(meter, Ina3221Meter)
    assert meter.source == "INA3221, rail VDD_IN"
    start = time.monotonic()
    time.sleep(0.3)
    joules, elapsed = meter.joules(), time.monotonic() - start
    meter.close()
    assert 0.8 * 10 * 0.3 < joules <= 10 * (elapsed + 0.1)  # 5 V and 2 A


def test_no_counter_is_no_meter(tmp_path):
    assert open_energy_meter(tmp_path) is None


def test_counters_that_may_not_be_read_are_no_meter(tmp_path):
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    write(zone / "name", "package-0")
    assert open_energy_meter(tmp_path) is None


class NoNvml:
    """Stands for pynvml where there is no driver."""

    def __init__(self):
        raise OSError("no driver")


def test_a_gpu_is_not_measured_by_the_processors_counters(tmp_path, packages, monkeypatch):
    monkeypatch.setattr("flashhead_edge.platforms.energy.NvmlMeter", NoNvml)
    assert open_energy_meter(tmp_path, gpu=True) is None
    chip = tmp_path / "sys/class/hwmon/hwmon3"
    for kind, value in (("in1_label", "VDD_IN"), ("in1_input", 5000), ("curr1_input", 1000)):
        write(chip / kind, value)
    meter = open_energy_meter(tmp_path, gpu=True)  # a Jetson, whose rail carries the GPU too
    assert isinstance(meter, Ina3221Meter)
    meter.close()


def test_a_gpus_own_counter_comes_first(tmp_path, packages, monkeypatch):
    counter = type("Counter", (), {"source": "NVML, GPU 0"})
    monkeypatch.setattr("flashhead_edge.platforms.energy.NvmlMeter", counter)
    assert open_energy_meter(tmp_path, gpu=True).source == "NVML, GPU 0"
    assert isinstance(open_energy_meter(tmp_path), RaplMeter)
