"""Facts of this machine that a profile depends on: what two profiles must share to be compared."""

from __future__ import annotations

from pathlib import Path

from flashhead_edge.platforms.catalog import Platform
from flashhead_edge.platforms.detection import DeviceFacts
from flashhead_edge.platforms.system_files import read_text
from flashhead_edge.profiling.peaks import matrix_operations, stream_bandwidth
from flashhead_edge.profiling.record import Machine

_CPU = "sys/devices/system/cpu"


def machine_of(facts: DeviceFacts, platform: Platform | None, *, threads: int, native_kernels: str | None) -> Machine:
    """Facts of this machine, with peaks of the catalogue or, where it has none, of short tests.

    Args:
        facts: What was detected.
        platform: The platform in the catalogue, or None.
        threads: Threads of the operators, which the stream test takes too.
        native_kernels: Kernels of the native library that the profile used.
    """
    known = platform.memory_bandwidth_gb_s if platform is not None else None
    stream = None if known else stream_bandwidth(threads)
    operations = matrix_operations()
    mode = facts.jetson.power_mode if facts.jetson else None
    return Machine(
        processor=facts.host.cpu_model,
        cores=facts.host.logical_cores,
        memory_bytes=facts.host.memory_bytes,
        bandwidth_gb_s=known or (stream.value if stream else None),
        bandwidth_source=stream.source if stream else "catalogue",
        operations_g_s=operations.value,
        operations_source=operations.source,
        governor=governor(),
        power_mode=mode.name if mode else None,
        isa_features=facts.host.isa_features,
        os=facts.host.os,
        packages=dict(facts.host.packages),
        native_kernels=native_kernels,
    )


def clock_mhz(root: Path = Path("/")) -> float | None:
    """Mean clock of the cores now, in MHz; None where the system does not say.

    Args:
        root: Root of the file system.
    """
    scaling = [read_text(file).strip() for file in (root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    clocks = [int(text) / 1e3 for text in scaling if text.isdigit()]
    if not clocks:
        lines = read_text(root / "proc/cpuinfo").splitlines()
        clocks = [float(line.partition(":")[2]) for line in lines if line.lower().startswith("cpu mhz")]
    return sum(clocks) / len(clocks) if clocks else None


def governor(root: Path = Path("/")) -> str | None:
    """Governor of the first core's frequency scaling; None where there is none.

    Args:
        root: Root of the file system.
    """
    return read_text(root / _CPU / "cpu0/cpufreq/scaling_governor").strip() or None
