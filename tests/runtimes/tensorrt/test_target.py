from __future__ import annotations

import pytest

from flashhead_edge.errors import OptionError
from flashhead_edge.platforms.catalog import find_platform, load_catalog
from flashhead_edge.platforms.detection import DeviceFacts, detect
from flashhead_edge.runtimes.tensorrt.target import BuildTarget, platform_here

ORIN = {
    "JETSON_MODEL": "NVIDIA Jetson Orin Nano Developer Kit",
    "JETPACK": "6.2",
    "MEMORY_BYTES": "7800000000",
    "GPU_NAME": "Orin",
    "CUDA_VERSION": "12.6",
    "POWER_MODE": "15W",
}
RTX = {"JETSON_MODEL": "none", "GPU_NAME": "NVIDIA GeForce RTX 4090", "CUDA_VERSION": "13.0"}
NOTHING = {"JETSON_MODEL": "none", "GPU_NAME": "none", "DRIVER_VERSION": "none"}


def facts_of(given: dict[str, str]) -> DeviceFacts:
    environ = {f"FLASHHEAD_EDGE_{name}": value for name, value in given.items()}
    return detect(environ=environ, try_providers=False)


@pytest.mark.parametrize(
    ("platform", "given", "is_here", "gpu", "cuda"),
    [
        ("jetson-orin-nano-8gb", ORIN, True, "NVIDIA Jetson Orin Nano Developer Kit", "12"),
        ("jetson-orin-nano-8gb-super", ORIN, True, "NVIDIA Jetson Orin Nano Developer Kit", "12"),
        ("jetson-agx-orin-64gb", ORIN, False, None, None),
        ("geforce-rtx-4090", RTX, True, "NVIDIA GeForce RTX 4090", "13"),
        ("geforce-rtx-4090", ORIN, False, None, None),
        ("geforce-rtx-4090", NOTHING, False, None, None),
    ],
)
def test_whether_the_platform_is_this_machine(
    platform: str, given: dict[str, str], is_here: bool, gpu: str | None, cuda: str | None
) -> None:
    target = BuildTarget.of(find_platform(platform), facts_of(given))
    assert (target.is_here, target.gpu, target.cuda) == (is_here, gpu, cuda)
    assert target.compute_capability == find_platform(platform).compute_capability


def test_a_platform_without_a_gpu_has_no_engines() -> None:
    with pytest.raises(OptionError, match="raspberry-pi-5 has no NVIDIA GPU"):
        BuildTarget.of(find_platform("raspberry-pi-5"), facts_of(NOTHING))


def test_this_machine_is_the_default() -> None:
    catalog = load_catalog()
    assert platform_here(catalog, facts_of(ORIN)).name == "jetson-orin-nano-8gb"
    assert platform_here(catalog, facts_of(RTX)).name == "geforce-rtx-4090"


@pytest.mark.parametrize("given", [NOTHING, NOTHING | {"GPU_NAME": "NVIDIA Quadro K600"}])
def test_without_a_known_gpu_a_platform_must_be_named(given: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="name one with --platform"):
        platform_here(load_catalog(), facts_of(given))
