from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.prediction.coefficients import family_coefficients

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def result(name):
    return json.loads((RESULTS / name).read_text())


def test_those_of_cpus_are_those_that_were_fitted():
    report, used = result("prediction.json"), family_coefficients(find_platform("raspberry-pi-5"))
    assert report["coefficients"] == {name: getattr(used, name) for name in report["coefficients"]}
    assert used.relative_error == report["errors"]["validation"]["p90"]


@pytest.mark.parametrize(("family", "name"), [("jetson", "jetson-orin-nano-8gb"), ("geforce", "geforce-rtx-4090")])
def test_those_of_gpus_are_those_that_were_fitted(family, name):
    report, used = result("published-speed.json"), family_coefficients(find_platform(name))
    fitted = report["coefficients"][family]
    assert fitted == {field: getattr(used, field) for field in fitted}
    assert used.gather_share == used.bandwidth_share
    assert used.relative_error == report["errors"]["two_stage_steps"][family]["p90"]


@pytest.mark.parametrize(
    ("name", "lender"),
    [
        ("nvidia-h100-80gb", "geforce-rtx-4090"),
        ("amd-mi300x-rocm", "geforce-rtx-4090"),
        ("raspberry-pi-5", "raspberry-pi-5"),
    ],
)
def test_other_families_borrow_and_claim_no_error(name, lender):
    stranger = replace(find_platform(name), family="own")
    borrowed, own = family_coefficients(stranger), family_coefficients(find_platform(lender))
    assert borrowed.relative_error is None
    assert borrowed.fitted_to.startswith("no ")
    told = {"relative_error", "fitted_to"}
    assert all(getattr(borrowed, f.name) == getattr(own, f.name) for f in fields(own) if f.name not in told)


def test_nothing_that_was_fitted_to_is_judged():
    report = result("prediction.json")
    keys = ("head", "vocab_size", "hidden_size", "precision", "batch", "cluster_size", "num_probes")
    more = ("centroid_precision", "low_bit_rows")
    fitted, judged = (
        {tuple(row[key] for key in keys + more) for row in report[part]} for part in ("calibration", "validation")
    )
    assert not fitted & judged
    assert {row[1:3] for row in fitted}.isdisjoint({row[1:3] for row in judged})
    assert len(judged) >= 30
