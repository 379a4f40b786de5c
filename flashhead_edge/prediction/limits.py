"""The two limits of a platform, bytes a second and operations a second, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flashhead_edge.errors import OptionError

if TYPE_CHECKING:
    from flashhead_edge.platforms.catalog import Platform

CPU = "cpu"
#: Share of the bandwidth that a vendor states for a CPU's memory which a stream test reaches. Source: STREAM on AM62x
#: with DDR4, 74 to 78 % of the wire rate, https://www.ti.com/document-viewer/lit/html/SPRAD45A, "Stream benchmarks".
STREAM_SHARE = 0.77
#: Multiplications and additions that a core does in a cycle, with float32 and with int8, by the widest instruction that
#: it has: two units of 16, 8 or 4 float32 lanes, each lane one multiplication and one addition; int8 dot products
#: (VNNI, SDOT) do four times as many, ``vpmaddubsw`` with its two helpers as many as float32, and an AMX tile 16 rows
#: x 64 int8 in 16 cycles.
#: Sources: Intel 64 and IA-32 Architectures Optimization Reference Manual; Arm Cortex-A76 Software Optimization Guide.
_A_CYCLE = (
    ("amx_int8", {"fp32": 64, "int8": 2048}),
    ("avx512_vnni", {"fp32": 64, "int8": 256}),
    ("avx512f", {"fp32": 64, "int8": 64}),
    ("avx2", {"fp32": 32, "int8": 32}),
    ("asimddp", {"fp32": 16, "int8": 64}),
    ("asimd", {"fp32": 16, "int8": 16}),
)


@dataclass(frozen=True)
class Limits:
    """What a platform can do at most.

    Attributes:
        bandwidth_gb_s: Of memory, 10^9 bytes a second.
        stream_gb_s: What shares of the bandwidth are of: on a CPU what a stream test reaches, on a GPU the peak.
        bandwidth_source: "catalogue", or "given".
        operations_g_s: Multiplications and additions, 10^9 a second, by precision; empty where nothing is known.
        operations_source: Where they come from; None where nothing is known.
    """

    bandwidth_gb_s: float
    stream_gb_s: float
    bandwidth_source: str
    operations_g_s: Mapping[str, float]
    operations_source: str | None

    def peak(self, precision: str | None) -> float | None:
        """Operations a second for weights in a precision, 10^9; None where unknown.

        int4 weights are widened to int8, or to fp16 where int8 is unknown, before they are multiplied.
        """
        for candidate in {"int4": ("int8", "fp16", "fp32"), "fp16": ("fp16", "fp32")}.get(
            precision or "", (precision or "",)
        ):
            if candidate in self.operations_g_s:
                return self.operations_g_s[candidate]
        return None


def platform_limits(
    platform: Platform,
    *,
    bandwidth_gb_s: float | None = None,
    cores: int | None = None,
    clock_ghz: float | None = None,
) -> Limits:
    """Limits of a platform.

    Args:
        platform: Of the catalogue.
        bandwidth_gb_s: What a stream test reached there; the catalogue's peak if None.
        cores: Of a CPU.
        clock_ghz: Of its cores, under load.

    Raises:
        OptionError: Nobody says how fast its memory is, or a value is not positive.
    """
    for name, value in (("bandwidth", bandwidth_gb_s), ("number of cores", cores), ("clock", clock_ghz)):
        if value is not None and value <= 0:
            raise OptionError(f"The {name} is out of range.", found=value, expected="more than 0")
    bandwidth = bandwidth_gb_s or platform.memory_bandwidth_gb_s
    if bandwidth is None:
        raise OptionError(
            f"The catalogue does not know the memory bandwidth of {platform.name}.",
            expected="--bandwidth, in 10^9 bytes a second",
            hint="an instruction set is no machine: give what a stream test reaches on yours",
        )
    if platform.family == CPU:
        operations, source = _cpu_operations(platform, cores, clock_ghz)
    else:
        operations, source = _gpu_operations(platform)
    stated = bandwidth_gb_s is None
    stream = bandwidth * (STREAM_SHARE if stated and platform.family == CPU else 1)
    return Limits(bandwidth, stream, "catalogue" if stated else "given", operations, source)


def _cpu_operations(
    platform: Platform, cores: int | None, clock_ghz: float | None
) -> tuple[Mapping[str, float], str | None]:
    """Cores x clock x operations a cycle, where all three are known."""
    cycle = next((rates for feature, rates in _A_CYCLE if feature in platform.isa_features), None)
    if cycle is None or cores is None or clock_ghz is None:
        return {}, None
    return (
        {precision: rate * cores * clock_ghz for precision, rate in cycle.items()},
        f"{cores} cores x {clock_ghz:g} GHz x operations a cycle",
    )


def _gpu_operations(platform: Platform) -> tuple[Mapping[str, float], str | None]:
    """Dense peaks. Where others are stated: sparse ones are twice as large, and halving the bits doubles them."""
    int8 = platform.peak_int8_dense_tops or _share(platform.peak_int8_sparse_tops, 2)
    fp16 = platform.peak_fp16_dense_tflops or _share(platform.peak_fp16_sparse_tflops, 2)
    int8 = int8 or _share(platform.peak_fp4_sparse_tflops, 4) or (fp16 and fp16 * 2)
    fp16 = fp16 or _share(int8, 2)
    if int8 is None or fp16 is None:
        return {}, None
    stated = platform.peak_int8_dense_tops is not None and platform.peak_fp16_dense_tflops is not None
    source = "catalogue" if stated else "catalogue, of other precisions"
    return {"int8": int8 * 1e3, "fp16": fp16 * 1e3, "fp32": fp16 * 500}, source


def _share(value: float | None, parts: float) -> float | None:
    return None if value is None else value / parts
