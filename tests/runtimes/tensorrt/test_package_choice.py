from __future__ import annotations

from dataclasses import replace

import pytest

from flashhead_edge.errors import EngineError, OptionError, RuntimeUnavailableError
from flashhead_edge.manifest import BatchProfile, TensorRtRecord
from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.runtimes.tensorrt.package_choice import check_package, check_types, choose_backend, precisions_of
from flashhead_edge.runtimes.tensorrt.probe import Package
from flashhead_edge.runtimes.tensorrt.target import BuildTarget
from tests.runtimes.tensorrt.test_target import NOTHING, ORIN, RTX, facts_of

RECORD = TensorRtRecord("reduce", "int8", "fp16", 17, "7.5", BatchProfile(1, 1, 8), {})
FP8 = replace(RECORD, centroid_precision="fp8", opset=19, least_compute_capability="8.9")
INT4 = replace(RECORD, centroid_precision=None, cluster_precision="int4", opset=21, least_compute_capability="8.0")
RTX_PACKAGE = Package("tensorrt-rtx", "1.7.1.116", ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Packages that are there; both at first."""
    names = {"tensorrt", "tensorrt-rtx"}
    monkeypatch.setattr("flashhead_edge.runtimes.tensorrt.package_choice.is_installed", names.__contains__)
    return names


def target_of(platform: str, given: dict[str, str]) -> BuildTarget:
    return BuildTarget.of(find_platform(platform), facts_of(given))


def choose(platform: str, given: dict[str, str], wanted: str | None = None) -> str:
    return choose_backend(find_platform(platform), target_of(platform, given), wanted, lambda name: RTX_PACKAGE)[0]


def refusal(platform: str, given: dict[str, str], wanted: str | None = None) -> str:
    with pytest.raises(EngineError) as caught:
        choose(platform, given, wanted)
    return str(caught.value)


def test_the_platforms_package_is_chosen(installed: set[str]) -> None:
    assert choose("jetson-orin-nano-8gb", ORIN) == "tensorrt"
    assert choose("geforce-rtx-4090", NOTHING) == "tensorrt-rtx"
    assert choose("geforce-rtx-4090", RTX, "tensorrt") == "tensorrt"
    assert choose("nvidia-a100-80gb", NOTHING, "tensorrt-rtx") == "tensorrt-rtx"


def test_tensorrt_builds_on_the_device_itself(installed: set[str]) -> None:
    text = refusal("jetson-orin-nano-8gb", RTX)
    assert "builds only on the device itself, and this is geforce-rtx-4090" in text
    assert "copy the bundle to the device" in text
    assert "--backend" not in text  # the other package does not know that GPU
    assert refusal("nvidia-a100-80gb", RTX).endswith(", or try --backend tensorrt-rtx")


def test_a_missing_package_names_the_extra_and_nothing_else_is_taken(installed: set[str]) -> None:
    installed.discard("tensorrt-rtx")
    text = refusal("geforce-rtx-4090", RTX)
    assert "tensorrt-rtx is not installed" in text
    assert "pip install 'flashhead-edge[tensorrt-rtx]'" in text


def test_on_a_jetson_the_package_is_jetpacks(installed: set[str]) -> None:
    installed.discard("tensorrt")
    assert "--system-site-packages" in refusal("jetson-orin-nano-8gb", ORIN)


def test_types_that_a_gpu_lacks_name_the_options() -> None:
    check_types(FP8, target_of("geforce-rtx-4090", NOTHING), "head")
    check_types(RECORD, target_of("geforce-rtx-3090", NOTHING), "head")
    with pytest.raises(OptionError) as caught:
        check_types(FP8, target_of("geforce-rtx-3090", NOTHING), "head")
    text = str(caught.value)
    assert "no fp8, which this graph's weights are in" in text
    assert "found: compute capability 8.6\n  expected: 8.9 or newer" in text
    assert "int8 or fp16 for --centroid-precision and --cluster-precision" in text


def test_types_of_a_dense_head_name_its_option() -> None:
    old = replace(target_of("geforce-rtx-3090", NOTHING), compute_capability="7.5")
    with pytest.raises(OptionError, match=r"no int4.*(\n.*)*for --tensorrt-dense"):
        check_types(INT4, old, "dense")


def test_capabilities_compare_as_versions() -> None:
    check_types(FP8, target_of("jetson-agx-thor-t5000", NOTHING), "head")  # 11.0, after 8.9


def test_a_gpu_that_is_too_old_is_not_told_to_export_again() -> None:
    with pytest.raises(OptionError, match="too old") as caught:
        check_types(RECORD, target_of("jetson-xavier-nx", NOTHING), "head")
    assert "export" not in str(caught.value)


def test_versions_that_cannot_read_the_graph() -> None:
    target = target_of("jetson-orin-nano-8gb", ORIN)
    old = Package("tensorrt", "8.6.2", None)
    check_package(old, RECORD, target)
    check_package(Package("tensorrt", "10.3.0", None), INT4, target)
    with pytest.raises(OptionError, match="found: opset 21"):
        check_package(old, INT4, target)
    with pytest.raises(RuntimeUnavailableError, match=r"8\.5\.3\.1"):
        check_package(Package("tensorrt", "8.5.3.1", None), RECORD, target)


def test_gpus_that_the_package_does_not_know() -> None:
    check_package(RTX_PACKAGE, RECORD, target_of("geforce-rtx-5090", NOTHING))
    with pytest.raises(EngineError, match=r"found: compute capability 9\.0"):
        check_package(RTX_PACKAGE, RECORD, target_of("nvidia-h100-80gb", NOTHING))


def test_precisions_are_told_once() -> None:
    assert precisions_of(RECORD) == ("int8", "fp16")
    assert precisions_of(replace(RECORD, centroid_precision="fp16")) == ("fp16",)
    assert precisions_of(INT4) == ("int4",)
