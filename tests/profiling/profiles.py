"""Profiles with made-up figures, for what reads, compares and shows them."""

from __future__ import annotations

from flashhead_edge.profiling.record import HeadPoint, Machine, Memory, MemorySample, Model, Overhead, Profile, Stage

MEASURED = Profile(
    platform="x86-cpu-avx512-vnni",
    measured=True,
    stages=(
        Stage("body", 3.0, 60_000_000, 120_000_000, "bandwidth", 2.9, 3.4, "onnxruntime profiler"),
        Stage("centroids", 0.3, 5_000_000, 10_000_000, "bandwidth", 0.28, 0.33, "onnxruntime profiler"),
        Stage("top-k", 0.05, None, None, None, 0.04, 0.06, "onnxruntime profiler"),
        Stage("gather + dot", 0.5, 14_000_000, 15_000_000, "bandwidth", 0.45, 0.6, "onnxruntime profiler"),
        Stage("sampling", 0.02, source="clock"),
        Stage("host", 0.1, source="clock"),
    ),
    memory=Memory(
        200_000_000,
        4_000_000,
        300_000_000,
        (MemorySample(0.0, 90_000_000, "open"), MemorySample(1.5, 300_000_000, "decode")),
    ),
    energy_j_per_token=None,
    step_ms=3.9,
    model=Model("model", "two-stage", 262_144, 640, 8192, 32, 365, "float16", "int8", "int4", 0.98, "ab" * 32),
    machine=Machine(
        "Some CPU",
        cores=2,
        memory_bytes=16_000_000_000,
        bandwidth_gb_s=20.0,
        bandwidth_source="stream test, 2 threads",
        operations_g_s=200.0,
        operations_source="matrix product",
        clock_mhz=2400.0,
        isa_features=("avx2",),
    ),
    created_by="flashhead-edge 0.1",
    runtime="onnxruntime 1.20",
    threads=2,
    positions=72,
    steps=128,
    overhead=Overhead(3.9, 4.1),
    other_load=0.0,
    taken_at="2026-01-02T03:04:05+00:00",
    head_points=(
        *(HeadPoint("probes", 1, 262_144, 8192, p, 0.3 + p / 600, 0.9 + p / 5000) for p in (64, 128, 256, 365)),
        *(HeadPoint("batch", b, 262_144, 8192, 365, 0.5 + b / 3) for b in (1, 2, 4, 8)),
    ),
    notes=("A <note> & more.",),
)
PREDICTED = Profile(
    platform="jetson-orin-nano-8gb",
    measured=False,
    stages=(
        Stage("body", 1.0, 60_000_000, 120_000_000, "bandwidth"),
        Stage("dense head", 2.0, 160_000_000, 3, "compute"),
    ),
    memory=Memory(200_000_000, None),
    energy_j_per_token=0.02,
    step_ms=3.0,
    model=Model("model", "dense", 262_144, 640),
    machine=Machine("Orin"),
    created_by="flashhead-edge 0.1",
    relative_error=0.3,
)
