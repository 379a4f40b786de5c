"""Figures of the speed of vLLM, from turns as its workers answer them."""

from __future__ import annotations

from benchmarks.vllm_speed import DENSE, NATIVE, summary


def turn(seconds, texts):
    rows = {"two_stage_rows": 5, "dense_rows": {}}
    return {"seconds": seconds, "head_seconds": 0.12, "sampler_seconds": 0.024, "texts": texts} | rows


def test_figures_are_medians_and_ratios_those_of_turns_side_by_side():
    dense = [turn(seconds, [[1, 2], [3, 4]]) for seconds in (2.4, 4.8, 2.4)]
    fast = [turn(seconds, [[1, 2], [3, 5]]) for seconds in (1.2, 1.2, 2.4)]
    row = summary(NATIVE, 2, 24, fast, dense)
    assert (row["head"], row["batch"], row["step_ms_p50"], row["head_ms_p50"]) == (NATIVE, 2, 50.0, 5.0)
    assert (row["ratio_min"], row["ratio_p50"], row["ratio_max"]) == (1.0, 2.0, 4.0)
    assert row["tokens_per_second_p50"] == 40.0
    assert row["same_tokens"] == 0.75
    unwatched = [{"seconds": 1.0, "texts": [[1]], "two_stage_rows": 0, "dense_rows": {}}]  # on a GPU
    assert "head_ms_p50" not in summary(DENSE, 1, 10, unwatched, unwatched)
    assert summary(DENSE, 2, 24, dense, dense)["ratio_p50"] == 1.0
