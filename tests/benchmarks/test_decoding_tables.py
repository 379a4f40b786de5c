from __future__ import annotations

from benchmarks import decoding_tables


def timed(attention, prompt_ms, step_ms):
    return {"positions": 512, "attention": attention, "prompt_ms_p50": prompt_ms, "step_ms_p50": step_ms}


def test_attentions_stand_beside_each_other_whichever_was_measured_first():
    report = {
        "machine": {"cpu_model": "Some CPU"},
        "threads": 2,
        "new_tokens": 120,
        "models": [
            {
                "model": "smollm2",
                "texts": {
                    "native library": {"equal": 24, "compared": 24},
                    "ONNX Runtime": {"equal": 20, "compared": 24},
                },
                "rows": [timed("ONNX Runtime", 91.34, 6.0), timed("native library", 80.12, 4.0)],
            }
        ],
    }
    text = decoding_tables.attention(report)
    assert "by attention: smollm2, native library: 24 of 24; smollm2, ONNX Runtime: 20 of 24.\n" in text
    assert text.splitlines()[-1] == "| smollm2 | 512 | 80.1 | 91.3 | 4.0 | 6.0 | 1.50 |"


def test_products_of_both_stand_in_one_row():
    both = ("ONNX Runtime", "native library")
    report = {
        "machine": {"cpu_model": "Some CPU"},
        "kernels": "avx2",
        "threads": 2,
        "new_tokens": 64,
        "models": [
            {
                "model": "smollm2",
                "tokens": {"positions": 1000, "native library": 991, "ONNX Runtime": 989},
                "memory": {
                    which: {"peak_rss_bytes": 3e8, "anonymous_bytes": 1e8, "mapped_bytes": 2e8} for which in both
                },
                "rows": [
                    {"positions": 512, "products": which, "prompt_ms_p50": 1.0 + i, "step_ms_p50": 4.0 - i}
                    for i, which in enumerate(both)
                ],
                "shapes": [
                    {"K": 64, "N": 32, "bits": 4, "nodes": 2, "products": which, "step_us_p50": 9, "prompt_us_p50": i}
                    for i, which in enumerate(both)
                ],
            }
        ],
    }
    lines = decoding_tables.body_products(report).splitlines()
    assert lines[0].endswith("with ours and with ONNX Runtime's: smollm2: 0.991 and 0.989 of 1000.")
    assert "| smollm2 | 512 | 2.0 | 1.0 | 3.0 | 4.0 | 1.33 |" in lines
    assert "| smollm2 | 64 x 32, 4 bits, 2 of them | 9 | 9 | 1 | 0 |" in lines
    assert lines[-1] == "| smollm2 | native library | 300 | 100 | 200 |"


def test_figures_of_each_model_follow_the_option():
    models = [
        {
            "model": model,
            "options": [{"option": "greedy", "tokens_per_second_p50": speed, "ratio_to_greedy": 1.0}],
            "batches": [{"rows": 4, "tokens_per_second": 2 * speed, "ratio_to_one": 2.0}],
        }
        for model, speed in (("smollm2", 60.0), ("gemma3-270m", 150.0))
    ]
    assert decoding_tables.options({"models": models}).splitlines() == [
        "| option | smollm2, tokens/s | ratio | gemma3-270m, tokens/s | ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| greedy | 60 | 1.00 | 150 | 1.00 |",
        "| 4 texts side by side, all together | 120 | 2.00 | 300 | 2.00 |",
    ]
