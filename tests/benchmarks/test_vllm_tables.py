from __future__ import annotations

from benchmarks import vllm_tables


def test_every_model_has_a_table_with_what_it_was_measured_on():
    row = {
        "head": "two-stage",
        "batch": 4,
        "rounds": 5,
        "tokens_per_second_p50": 101.26,
        "ratio_p50": 1.204,
        "ratio_min": 1.1,
        "ratio_max": 1.3,
        "step_ms_p50": 39.5,
        "head_ms_p50": 4.04,
        "sampler_ms_p50": 0.5,
    }
    model = {"vllm": "0.14", "clock": "2.5 GHz", "sampling": {"temperature": 0}, "rows": [row]}
    report = {"machine": {"cpu_model": "Some CPU"}, "models": {"smollm2": model, "gemma3-270m": model}}
    first, _, second, table = vllm_tables.speed(report).split("\n\n")
    assert first == ('smollm2: vLLM 0.14, bfloat16, Some CPU, 2.5 GHz, {"temperature": 0}; medians of rounds in turn.')
    assert second.startswith("gemma3-270m: ")
    assert table.splitlines()[-1] == "| two-stage | 4 | 5 | 101.3 | 1.20 | 1.10 to 1.30 | 39.5 | 4.0 | 0.5 |"
