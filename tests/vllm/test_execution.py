"""Ways to execute a model: two devices that share the vocabulary, torch.compile, LoRA."""

from __future__ import annotations

import pytest
from adapters import lora_adapter
from comparison import assert_same_logprobs, assert_same_tokens
from decoding_cases import GREEDY, PROMPTS, naming, unconstrained
from engines import engine, run

pytestmark = pytest.mark.vllm


def some_cases(ids):
    cases = unconstrained(list(ids)) | naming(list(ids))
    greedy = {"greedy": {"prompts": PROMPTS, "sampling": GREEDY}}
    return greedy | {name: cases[name] for name in ("sampled", "logprobs", "regex", "allowed ids", "mixed")}


def assert_equal(outputs, one, other, cases, tolerance=1e-4):
    expected, found = outputs.outputs(one), outputs.outputs(other)
    for case in cases:
        assert_same_tokens(case, expected[case], found[case])
        assert_same_logprobs(case, expected[case], found[case], tolerance)


def test_tensor_parallel(served, tmp_path):
    """Dense on two devices is the yardstick; each has half of the columns."""
    model = served("llama")
    cases, options = some_cases(model.some_ids), {"dtype": model.dtype}
    options |= {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    outputs = run(
        tmp_path,
        engine("dense", model.standard, cases, **options),
        engine("all opened", model.published, cases, **options, **model.all_opened),
        engine("default", model.published, cases, **options, **model.default),
        env={"VLLM_CPU_OMP_THREADS_BIND": "0|1", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
    )
    assert_equal(outputs, "dense", "all opened", cases)
    assert_equal(outputs, "dense", "default", ("regex", "allowed ids"))


def test_compiled(served, tmp_path):
    model = served("llama")
    cases, options = some_cases(model.some_ids), {"dtype": model.dtype, "enforce_eager": False}
    outputs = run(
        tmp_path,
        engine("dense", model.standard, cases, **options),
        engine("all opened", model.published, cases, **options, **model.all_opened),
        engine("default", model.published, cases, **options, **model.default),
    )
    assert_equal(outputs, "dense", "all opened", cases)
    assert_equal(outputs, "dense", "default", ("regex", "allowed ids"))


def test_lora(served, tmp_path):
    model = served("llama")
    attention = lora_adapter(tmp_path / "attention", ("q_proj", "v_proj"))
    cases = {}
    for name, case in some_cases(model.some_ids).items():
        if name == "logprobs":  # with adapters, vLLM for CPUs fails on those of prompts, dense head or not
            case["sampling"] = {k: v for k, v in case["sampling"].items() if k != "prompt_logprobs"}
        cases |= {name: case, f"{name}, adapted": case | {"lora": str(attention)}}
    options = {"dtype": model.dtype, "enable_lora": True, "max_lora_rank": 8}
    outputs = run(
        tmp_path,
        engine("dense", model.standard, cases, **options),
        engine("all opened", model.published, cases, **options, **model.all_opened),
    )
    assert_equal(outputs, "dense", "all opened", cases)
    dense = outputs.outputs("dense")
    assert dense["greedy"] != dense["greedy, adapted"]
    assert outputs.engines["all opened"]["counts"]["two_stage"] > 100
    assert not outputs.said("a LoRA adapter changes the head")


def test_lora_on_the_head_is_dense(served, tmp_path):
    """Estimates say nothing of an adapter's part, so its rows are dense, and said to be."""
    model = served("llama")
    head = lora_adapter(tmp_path / "head", ("lm_head",))
    cases = {"before": {"prompts": PROMPTS[:2], "sampling": GREEDY}}
    cases["adapted"] = cases["before"] | {"lora": str(head)}
    options = {"dtype": model.dtype, "enable_lora": True, "max_lora_rank": 8}
    outputs = run(
        tmp_path,
        engine("dense", model.standard, cases, **options),
        engine("default", model.published, cases, **options, **model.default),
    )
    assert_equal(outputs, "dense", "default", ("adapted",))
    assert outputs.outputs("dense")["before"] != outputs.outputs("dense")["adapted"]
    assert outputs.said("The dense head is used: a LoRA adapter changes the head.") == 1
    counts = outputs.engines["default"]["counts"]
    assert counts["dense"]["a LoRA adapter changes the head"] > 0
    assert counts["two_stage"] > 0  # of the texts before
