"""The committed comparison with published figures follows from them and from the package."""

from __future__ import annotations

import json

import pytest

from benchmarks import published_speed
from benchmarks.models import RESULTS
from flashhead_edge.platforms.catalog import load_catalog
from flashhead_edge.prediction.coefficients import family_coefficients

PUBLISHED = json.loads((published_speed.PUBLISHED / "speed.json").read_text())
REPORT = json.loads((RESULTS / "published-speed.json").read_text())
CATALOG = load_catalog([published_speed.PUBLISHED / "platforms.toml"])


@pytest.mark.parametrize("family", ["jetson", "geforce"])
def test_fits_are_those_of_the_published_dense_steps(family):
    rows = [row for row in PUBLISHED["steps"] if CATALOG.find(row["platform"]).family == family]
    found = published_speed.fit(rows, PUBLISHED, CATALOG)
    assert REPORT["coefficients"][family] == {name: getattr(found, name) for name in published_speed.FITTED}


def test_two_stage_steps_play_no_part_in_fits():
    rows = [row | {"two_stage": 1.0} for row in PUBLISHED["steps"] if row["platform"] == "rtx-3500-ada"]
    first = published_speed.fit(rows, PUBLISHED, CATALOG)
    second = published_speed.fit([row | {"two_stage": None} for row in rows], PUBLISHED, CATALOG)
    assert first == second


@pytest.mark.parametrize("number", range(len(PUBLISHED["steps"])))
def test_rows_are_what_the_package_predicts(number):
    row = PUBLISHED["steps"][number]
    reached = family_coefficients(CATALOG.find(row["platform"]))
    expected = next(
        found
        for found in REPORT["steps"]
        if all(found[key] == row[key] for key in ("model", "platform", "body", "dense"))
    )
    assert published_speed.compare_steps(row, PUBLISHED, CATALOG, reached) == expected


def test_models_have_the_sizes_that_their_publishers_state():
    # Parameters without norms: 1.24, 3.21, 1.0, 0.6 and 1.72 thousand millions by their model cards.
    stated = {"llama-3.2-1b": 1.24, "llama-3.2-3b": 3.21, "gemma-3-1b": 1.0, "qwen3-0.6b": 0.6, "qwen3-1.7b": 1.72}
    for name, size in stated.items():
        model = published_speed.shape_of(PUBLISHED, name, "fp16")
        assert model.body is not None
        total = model.body.weights + model.vocab_size * model.hidden_size
        assert total / 1e9 == pytest.approx(size, rel=0.01)


def test_what_a_head_can_save_at_the_memorys_peak():
    (row,) = (r for r in REPORT["steps"] if (r["model"], r["platform"], r["body"]) == ("llama-3.2-1b", *_THOR))
    clusters = 128_256 // 16
    unread = 128_256 - clusters - clusters // 16 * 16
    assert row["saved_ms_at_peak"] == pytest.approx(unread * 2048 * 2 / 273e6, abs=1e-3)
    assert row["saved_ms"] == pytest.approx(1e3 / 162.46 - 1e3 / 284.76, abs=1e-3)


_THOR = ("jetson-agx-thor-t5000", "W4A16")
