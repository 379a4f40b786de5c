from __future__ import annotations

from dataclasses import replace

import pytest

from flashhead_edge.errors import OptionError
from flashhead_edge.platforms.catalog import find_platform, load_catalog
from flashhead_edge.prediction.limits import STREAM_SHARE, platform_limits

X86 = find_platform("x86-cpu-avx512-vnni")


def test_bandwidth_of_the_catalogue():
    limits = platform_limits(find_platform("jetson-orin-nano-8gb"))
    assert (limits.bandwidth_gb_s, limits.stream_gb_s, limits.bandwidth_source) == (68, 68, "catalogue")


def test_a_vendors_bandwidth_of_a_cpu_is_more_than_a_stream_test_reaches():
    limits = platform_limits(find_platform("raspberry-pi-5"))
    assert (limits.bandwidth_gb_s, limits.stream_gb_s) == (17, 17 * STREAM_SHARE)


def test_a_given_bandwidth_is_what_a_stream_test_reached():
    limits = platform_limits(find_platform("raspberry-pi-5"), bandwidth_gb_s=12.5)
    assert (limits.bandwidth_gb_s, limits.stream_gb_s, limits.bandwidth_source) == (12.5, 12.5, "given")


def test_unknown_bandwidth_is_refused():
    with pytest.raises(OptionError, match="--bandwidth"):
        platform_limits(X86)


@pytest.mark.parametrize("option", ["bandwidth_gb_s", "cores", "clock_ghz"])
def test_nothing_is_zero(option):
    with pytest.raises(OptionError, match="out of range"):
        platform_limits(X86, **{"bandwidth_gb_s": 1, option: 0})


@pytest.mark.parametrize(
    ("platform", "fp32", "int8"),
    [("x86-cpu-avx512-vnni", 64, 256), ("x86-cpu-avx2", 32, 32), ("x86-cpu-amx", 64, 2048)],
)
def test_peak_of_a_cpu_is_cores_times_clock_times_instruction_set(platform, fp32, int8):
    limits = platform_limits(find_platform(platform), bandwidth_gb_s=20, cores=2, clock_ghz=2.5)
    assert limits.peak("fp32") == limits.peak("fp16") == 5 * fp32
    assert limits.peak("int8") == limits.peak("int4") == 5 * int8


@pytest.mark.parametrize("known", [{}, {"cores": 4}, {"clock_ghz": 3.0}])
def test_peak_of_a_cpu_is_unknown_without_both(known):
    assert platform_limits(X86, bandwidth_gb_s=20, **known).peak("int8") is None


@pytest.mark.parametrize(
    ("platform", "int8", "fp16", "source"),
    [
        ("nvidia-h100-80gb", 1_978_900, 989_400, "catalogue"),
        # 67 sparse TOPS are 33.5 dense ones, and half of those in fp16.
        ("jetson-orin-nano-8gb-super", 33_500, 16_750, "catalogue, of other precisions"),
        # 2,070 sparse fp4 TFLOPS: a half dense, a half of that in eight bits, a half of that in sixteen.
        ("jetson-agx-thor-t5000", 517_500, 258_750, "catalogue, of other precisions"),
        ("nvidia-l4", 242_500, 121_000, "catalogue, of other precisions"),
    ],
)
def test_peaks_of_gpus(platform, int8, fp16, source):
    limits = platform_limits(find_platform(platform))
    assert (limits.peak("int8"), limits.peak("fp16")) == (int8, fp16)
    assert limits.operations_source == source


def test_no_stated_peak_leaves_it_unknown():
    limits = platform_limits(find_platform("geforce-rtx-3090"))
    assert limits.peak("int8") is limits.peak("fp16") is limits.operations_source is None
    assert limits.peak(None) is None


def test_a_stated_peak_is_taken_before_one_that_follows():
    platform = replace(find_platform("nvidia-h100-80gb"), peak_int8_dense_tops=1.0)
    assert platform_limits(platform).peak("int8") == 1000


@pytest.mark.parametrize("name", [p.name for p in load_catalog().platforms.values() if p.memory_bandwidth_gb_s])
def test_peaks_fall_with_precision(name):
    limits = platform_limits(find_platform(name), cores=4, clock_ghz=2)
    peaks = [limits.peak(precision) for precision in ("int4", "int8", "fp16", "fp32")]
    assert all(peak is None for peak in peaks) or peaks == sorted(peaks, reverse=True)
