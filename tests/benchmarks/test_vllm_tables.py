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


def test_agreement_has_a_row_for_each_kind_of_text():
    kind = {"positions": 960, "agreement": 0.9948, "total_variation_mean": 0.01234}
    kind |= {"total_variation_p50": 0.001, "total_variation_p99": 0.2}
    model = {
        "model": "smollm2",
        "num_clusters": 1536,
        "num_probes": 111,
        "greedy": kind,
        "drawn": kind | {"agreement": 0.9},
        "all_opened": kind | {"agreement": 1.0},
        "greedy_texts": {"texts": 48, "equal": 40},
        "accepted_drafts": {"dense": 0.98, "two_stage": 0.975},
        "versions": {"vllm": "0.32.0"},
    }
    other = model | {"model": "gemma3-270m", "accepted_drafts": None}
    table, note, second = vllm_tables.agreement({"new_tokens": 22, "models": [model, other]}).split("\n\n")
    assert table.splitlines()[2] == "| smollm2 | greedy | 111 of 1536 | 960 | 0.9948 | 0.0123 | 0.0010 | 0.2000 |"
    assert table.splitlines()[4].startswith("| smollm2 | greedy | 1536 of 1536 | 960 | 1.0000 |")
    assert "40 of 48 whole greedy texts of 22 tokens" in note
    assert "accepts 97.5% of its drafts, and the dense head 98.0%" in note
    assert "Drafting" not in second
