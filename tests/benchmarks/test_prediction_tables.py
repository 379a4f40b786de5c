from __future__ import annotations

import json

from benchmarks import prediction_tables
from benchmarks.models import RESULTS

PUBLISHED = json.loads((RESULTS / "published-speed.json").read_text())


def cells(table, first):
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_published_speed_up_stands_beside_its_prediction():
    table = prediction_tables.published_speedups(PUBLISHED)
    rows = [row for row in PUBLISHED["steps"] if row["two_stage"] is not None]
    assert len(table.splitlines()) == len(rows) + 2
    found = cells(table, "gemma-3-1b | jetson-agx-thor-t5000 | W4A16")
    assert found[3] == "141.18 to 153.12"
    assert found[5] == "1.08"
    (row,) = (row for row in rows if (row["dense"], row["two_stage"]) == (141.18, 153.12))
    assert found[6] == f"{row['predicted_speedup']:.2f}"


def test_an_error_is_of_the_prediction_against_what_was_found():
    call = {"platform": "board", "head": "two-stage", "call_us": 200, "predicted_us": 150.0}
    assert cells(prediction_tables.published_calls({"calls": [call]}), "board") == [
        "board",
        "fused",
        "200",
        "150",
        "-25%",
    ]


def test_heads_are_named_by_what_is_in_them():
    row = {
        "vocab_size": 1000,
        "hidden_size": 64,
        "head": "native",
        "precision": "fp16",
        "num_probes": 8,
        "cluster_size": 16,
        "centroid_precision": "int8",
        "low_bit_rows": "int4",
        "batch": 2,
        "ms_p50": 1.0,
        "ms_p10": 0.9,
        "ms_p90": 1.1,
        "predicted_ms": 1.25,
        "ratio": 1.25,
    }
    dense = row | {"head": "dense", "precision": "int8", "num_probes": 0}
    table = prediction_tables.heads({"validation": [row, dense]})
    lines = table.splitlines()[2:]
    assert "| native, int8 centroids, int4 rows first | 8 of 16 | 2 | 1.00 | 0.90 to 1.10 | 1.25 | 1.25 |" in lines[0]
    assert "| dense int8 | - |" in lines[1]
