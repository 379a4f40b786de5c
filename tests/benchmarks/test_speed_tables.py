from __future__ import annotations

from benchmarks import speed_tables

ROW = {
    "threads": 2,
    "cpu_model": "Some CPU",
    "batch": 1,
    "rounds": 5,
    "head": "two-stage",
    "test": "tg64",
    "tokens_per_second_p50": 147.04,
    "tokens_per_second_min": 140.2,
    "tokens_per_second_max": 150.7,
    "ratio_p50": 1.531,
    "head_ms_p50": 0.851,
    "agreement": 0.9912,
    "peak_rss_bytes": 326_000_000,
}


def test_what_bench_could_not_see_is_a_dash():
    theirs = ROW | {"head": "llama.cpp", "head_ms_p50": None, "agreement": None, "ratio_p50": 1.0}
    lines = speed_tables.bench("smollm2", [ROW, theirs]).splitlines()
    assert lines[0] == "smollm2, 2 threads of Some CPU, batch 1; medians of 5 rounds."
    assert lines[-2:] == [
        "| two-stage | tg64 | 147 | 140 to 151 | 1.53 | 0.85 | 0.991 | 326 |",
        "| llama.cpp | tg64 | 147 | 140 to 151 | 1.00 | - | - | 326 |",
    ]
