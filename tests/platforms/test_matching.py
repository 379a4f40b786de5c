"""Which platform of the catalogue a device is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flashhead_edge.platforms.catalog import load_catalog
from flashhead_edge.platforms.detection import DeviceFacts, detect
from flashhead_edge.platforms.host import HostFacts
from flashhead_edge.platforms.jetson import JetsonFacts, PowerMode
from flashhead_edge.platforms.matching import match_platform
from flashhead_edge.platforms.nvidia import GpuFacts, NvidiaFacts

GIB = 1 << 30
BOARDS = Path(__file__).parent / "boards"


def device(*, memory=8 * GIB, cpu="cpu", isa=(), architecture="x86_64", **facts):
    return DeviceFacts(host=HostFacts(cpu, architecture, 4, isa, memory, "Linux", "3.11.7", {}), **facts)


@pytest.mark.parametrize(
    ("model", "memory", "modes", "expected"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit", 7.4, ["15W", "7W"], "jetson-orin-nano-8gb"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", 7.4, [], "jetson-orin-nano-8gb-super"),
        ("NVIDIA Jetson Orin Nano Developer Kit", 3.6, ["MAXN_SUPER"], "jetson-orin-nano-4gb-super"),
        ("NVIDIA Jetson Orin NX Engineering Reference", 15.3, ["MAXN"], "jetson-orin-nx-16gb"),
        ("NVIDIA Jetson AGX Orin Developer Kit", 61.4, ["MAXN"], "jetson-agx-orin-64gb"),
        ("NVIDIA Jetson AGX Orin Developer Kit", 29.8, ["MAXN"], "jetson-agx-orin-32gb"),
        ("NVIDIA Jetson AGX Thor Developer Kit", 122.8, ["MAXN"], "jetson-agx-thor-t5000"),
        ("NVIDIA Jetson Xavier NX Developer Kit", 6.7, [], "jetson-xavier-nx"),
        ("NVIDIA Jetson AGX Orin Developer Kit", None, [], "jetson-agx-orin-32gb"),
        ("NVIDIA Jetson Orin Nano Developer Kit", 100.0, [], None),
        ("NVIDIA Jetson Nano Developer Kit", 3.9, [], None),
        (None, 3.9, [], None),
    ],
)
def test_boards(model, memory, modes, expected):
    jetson = JetsonFacts(model=model, power_modes=dict(enumerate(modes)), power_mode=PowerMode(0, "x"))
    size = None if memory is None else int(memory * GIB)
    found = match_platform(device(memory=size, architecture="aarch64", jetson=jetson))
    assert found.name == expected
    assert found.reason


@pytest.mark.parametrize(
    ("name", "memory", "expected"),
    [
        ("NVIDIA GeForce RTX 4090", 24, "geforce-rtx-4090"),
        ("NVIDIA GeForce RTX 3060", 12, "geforce-rtx-3060-12gb"),
        ("NVIDIA GeForce RTX 3060", 8, None),
        ("NVIDIA L4", 22.5, "nvidia-l4"),
        ("NVIDIA L40S", 45, None),
        ("NVIDIA A100-SXM4-80GB", 80, "nvidia-a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", 40, None),
        ("NVIDIA H100 80GB HBM3", 79.6, "nvidia-h100-80gb"),
        ("NVIDIA H200", 140, "nvidia-h200"),
        ("NVIDIA B200", None, "nvidia-b200"),
        ("NVIDIA GB10", 119.7, "dgx-spark"),
        (None, None, None),
    ],
)
def test_gpus(name, memory, expected):
    gpu = GpuFacts(name, None if memory is None else int(memory * GIB))
    assert match_platform(device(nvidia=NvidiaFacts((gpu,), "550.1", "12.4"))).name == expected


@pytest.mark.parametrize(
    ("isa", "architecture", "cpu", "expected"),
    [
        (("avx2", "fma", "f16c"), "x86_64", "cpu", "x86-cpu-avx2"),
        (("avx2", "fma", "f16c", "avx512f", "avx512_vnni"), "x86_64", "cpu", "x86-cpu-avx512-vnni"),
        (("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16"), "x86_64", "cpu", "x86-cpu-amx"),
        ((), "x86_64", "cpu", None),
        (("asimd", "asimddp"), "aarch64", "Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi-5"),
        (("asimd",), "aarch64", "Cortex-A53", None),
    ],
)
def test_processors(isa, architecture, cpu, expected):
    assert match_platform(device(isa=isa, architecture=architecture, cpu=cpu)).name == expected


@pytest.mark.parametrize(
    ("board", "memory", "expected"),
    [
        ("agx-orin", 61, "jetson-agx-orin-64gb"),
        ("agx-thor", 123, "jetson-agx-thor-t5000"),
        ("orin-nano-8gb", 7.4, "jetson-orin-nano-8gb"),
        ("xavier-nx", 6.7, "jetson-xavier-nx"),
    ],
)
def test_the_trees_of_real_boards(board, memory, expected):
    facts = detect(BOARDS / board, environ={}, try_providers=False)
    facts = replace(facts, host=replace(facts.host, memory_bytes=int(memory * GIB)))
    name = match_platform(facts).name
    assert name is not None
    assert name.removesuffix("-super") == expected


def test_every_match_is_in_the_catalogue():
    assert match_platform(detect(try_providers=False)).name in {None, *load_catalog().platforms}
