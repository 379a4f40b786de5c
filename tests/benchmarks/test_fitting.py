from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.fitting import fit_coefficients, mean_error, ratio_errors
from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.prediction.coefficients import family_coefficients
from flashhead_edge.prediction.limits import platform_limits
from flashhead_edge.prediction.roofline import predict_step
from flashhead_edge.prediction.shapes import HeadShape, ModelShape

PLATFORM = find_platform("x86-cpu-avx512-vnni")
LIMITS = platform_limits(PLATFORM, bandwidth_gb_s=20, cores=2, clock_ghz=2.8)
START = family_coefficients(PLATFORM)


def cases(coefficients):
    """Dense heads whose times are those of the coefficients."""

    def case(vocab, batch):
        model = ModelShape("rows", vocab, 512)

        def ms(found):
            head = HeadShape("dense", "int8")
            return predict_step(model, head, PLATFORM, LIMITS, batch=batch, reached=found).step_ms

        return ms, ms(coefficients)

    return [case(vocab, batch) for vocab in (1_000, 30_000, 300_000) for batch in (1, 64)]


def test_it_finds_the_coefficients_that_times_were_made_with():
    true = replace(START, bandwidth_share=0.5, compute_share=0.02, step_us=40.0)
    names = ("bandwidth_share", "compute_share", "step_us")
    found = fit_coefficients(cases(true), START, names)
    assert mean_error(cases(true), found) < 0.01
    for name in names:
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=0.05)


def test_other_coefficients_stay():
    found = fit_coefficients(cases(replace(START, bandwidth_share=0.4)), START, ("bandwidth_share",))
    assert replace(found, bandwidth_share=START.bandwidth_share) == START


def test_a_share_stays_below_one():
    found = fit_coefficients([(lambda found: 1 / found.bandwidth_share, 0.1)], START, ("bandwidth_share",))
    assert found.bandwidth_share == 1.0


def test_errors_are_distances_from_one():
    assert ratio_errors([1.0, 0.8, 1.1]) == {"cases": 3, "median": 0.1, "p90": 0.18, "greatest": 0.2}
