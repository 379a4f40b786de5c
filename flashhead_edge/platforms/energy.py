"""Energy counters that a platform has: Intel and AMD packages (RAPL), Jetson rails (INA3221), NVIDIA GPUs (NVML).

A counter covers what its sensor covers: a RAPL package leaves out memory on most desktops, Jetson's input rail is the
whole module.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from flashhead_edge.platforms.system_files import read_text

_RAPL = "sys/class/powercap"
_HWMON = "sys/class/hwmon"
#: Rails of Jetson modules that carry everything, by the names that device trees give them.
_INPUT_RAILS = ("VDD_IN", "POM_5V_IN", "VIN", "SYS_VIN_HV", "VIN_SYS_5V0")
_SAMPLE_SECONDS = 0.05


class EnergyMeter(Protocol):
    """Counts energy.

    Attributes:
        source: What measures, for people.
    """

    source: str

    def joules(self) -> float:
        """Energy since the meter was made."""

    def close(self) -> None:
        """Stop counting."""


class RaplMeter:
    """Energy of all processor packages, from the kernel's powercap interface.

    Args:
        zones: Folders of the packages, with ``energy_uj`` and ``max_energy_range_uj``.
    """

    def __init__(self, zones: list[Path]) -> None:
        self.source = f"RAPL, {len(zones)} package{'s' if len(zones) > 1 else ''}"
        self._zones = zones
        self._ranges = [int(read_text(zone / "max_energy_range_uj") or 0) for zone in zones]
        self._last = self._read()
        self._total = 0

    def joules(self) -> float:
        """Energy since the meter was made; call it at least once a minute, as counters wrap."""
        now = self._read()
        for before, after, size in zip(self._last, now, self._ranges, strict=True):
            self._total += after - before if after >= before else after - before + size
        self._last = now
        return self._total / 1e6

    def close(self) -> None:
        """Nothing to stop."""

    def _read(self) -> list[int]:
        return [int(read_text(zone / "energy_uj")) for zone in self._zones]


class Ina3221Meter:
    """Energy of a Jetson module's input rail, from samples of voltage and current.

    Args:
        voltage: File of millivolts.
        current: File of milliamperes.
        rail: Name of the rail.
    """

    def __init__(self, voltage: Path, current: Path, rail: str) -> None:
        self.source = f"INA3221, rail {rail}"
        self._files = (voltage, current)
        self._total = 0.0
        self._last = time.monotonic()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._sample_until_closed, daemon=True)
        self._thread.start()

    def joules(self) -> float:
        """Energy since the meter was made."""
        self._sample()
        return self._total

    def close(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _sample_until_closed(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        """Take the power now as that since the last sample."""
        with self._lock:
            millivolts, milliamperes = (int(read_text(file) or 0) for file in self._files)
            now = time.monotonic()
            self._total += millivolts * milliamperes / 1e6 * (now - self._last)
            self._last = now


class NvmlMeter:
    """Energy of an NVIDIA GPU, from the driver's counter (Volta and later).

    Args:
        device: Number of the GPU.

    Raises:
        ImportError: nvidia-ml-py is not installed.
        pynvml.NVMLError: There is no driver or no such counter.
    """

    def __init__(self, device: int = 0) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(device)
        self.source = f"NVML, GPU {device}"
        self._first = self._read()

    def joules(self) -> float:
        """Energy since the meter was made."""
        return (self._read() - self._first) / 1e3

    def close(self) -> None:
        """Let go of the driver."""
        self._nvml.nvmlShutdown()

    def _read(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))


def open_energy_meter(root: Path = Path("/"), *, gpu: bool = False) -> EnergyMeter | None:
    """The meter that covers most of what decodes here.

    Args:
        root: Root of the file system.
        gpu: Whether an NVIDIA GPU decodes: its own counter is then used, or a Jetson's input rail, and none of a
            processor.

    Returns:
        A meter, or None where nothing can be read (RAPL counters are readable by root alone on many systems).
    """
    if gpu:
        with suppress(Exception):  # pynvml's errors share no base that exists without it
            return NvmlMeter()
    for rail in sorted((root / _HWMON).glob("hwmon*/in*_label")):
        name = read_text(rail).strip()
        number = rail.name.removeprefix("in").removesuffix("_label")
        files = (rail.with_name(f"in{number}_input"), rail.with_name(f"curr{number}_input"))
        if name in _INPUT_RAILS and all(read_text(file).strip() for file in files):
            return Ina3221Meter(*files, name)
    if gpu:
        return None
    packages = [
        zone
        for zone in sorted((root / _RAPL).glob("*-rapl:*"))
        if read_text(zone / "name").startswith("package") and read_text(zone / "energy_uj").strip()
    ]
    return RaplMeter(packages) if packages else None
