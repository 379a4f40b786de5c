"""Two profiles side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flashhead_edge.profiling.compare import compare_profiles
from flashhead_edge.profiling.formats import format_difference, format_profile
from tests.profiling.profiles import MEASURED, PREDICTED


def test_a_profile_does_not_differ_from_itself() -> None:
    difference = compare_profiles(MEASURED, MEASURED)
    assert {stage.ratio for stage in difference.stages} == {1.0}
    assert difference.circumstances == {}
    assert difference.peak_rss_ratio == 1.0
    assert difference.energy_ratio is None


def test_ratios_and_circumstances() -> None:
    stages = tuple(replace(stage, ms=2 * stage.ms) for stage in MEASURED.stages)
    machine = replace(MEASURED.machine, processor="Another CPU", clock_mhz=2410.0, governor="powersave")
    slower = replace(MEASURED, stages=stages, step_ms=7.8, threads=1, machine=machine, energy_j_per_token=1.0)
    difference = compare_profiles(replace(MEASURED, energy_j_per_token=0.5), slower)
    assert all(stage.ratio == pytest.approx(2) for stage in difference.stages)
    assert difference.energy_ratio == 2
    assert difference.circumstances == {
        "threads": (2, 1),
        "machine.processor": ("Some CPU", "Another CPU"),
        "machine.governor": (None, "powersave"),
    }


def test_stages_that_only_one_has() -> None:
    by_name = {stage.name: stage for stage in compare_profiles(MEASURED, PREDICTED).stages}
    assert by_name["dense head"].first_ms is None
    assert by_name["centroids"].second_ms is None
    assert by_name["centroids"].ratio is None
    assert by_name["step"].ratio == pytest.approx(3.0 / 3.9)


def test_texts_say_what_matters() -> None:
    text = format_difference("a", "b", compare_profiles(MEASURED, PREDICTED))
    assert "measured: True / False" in text
    assert "machine.processor: Some CPU / Orin" in text
    measured, predicted = format_profile(MEASURED), format_profile(PREDICTED)
    assert "PREDICTED, not measured" in predicted
    assert "may be off by 30 %" in predicted
    assert "PREDICTED" not in measured
    assert "+5.1 %" in measured  # what profiling costs
    assert "no counter" in measured
    assert "0.0200 J a token" in predicted
    assert "20.0 GB/s" in measured
