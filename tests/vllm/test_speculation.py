"""Speculation: texts equal those of dense vLLM with the same drafts; drafts use the two-stage head too."""

from __future__ import annotations

import pytest
from adapters import eagle_draft
from comparison import assert_same_logprobs, assert_same_tokens
from decoding_cases import GREEDY, PROMPTS
from engines import engine, run, together
from served_models import changed

pytestmark = pytest.mark.vllm
METHODS = ("ngram", "draft_model", "eagle")


def cases(ids):
    longer = GREEDY | {"max_tokens": 24}
    # Nothing sampled: with drafts, dense vLLM itself draws other tokens from the same seed when it runs again, and for
    # CPUs it fails on top-k and top-p.
    return {
        "greedy": {"prompts": PROMPTS[:4], "sampling": longer},
        "logprobs": {"prompts": PROMPTS[:2], "sampling": longer | {"logprobs": 3}},
        "regex": {"prompts": PROMPTS[:3], "sampling": longer | {"structured": {"regex": "[0-9]{4}-[a-f]{3}"}}},
        "allowed ids": {"prompts": PROMPTS[:2], "sampling": longer | {"allowed_token_ids": list(ids)}},
    }


@pytest.fixture(scope="module")
def outputs(served, tmp_path_factory):
    folder = tmp_path_factory.mktemp("speculation")
    model, draft = served("llama"), eagle_draft(folder / "eagle")
    all_opened = changed(model.published, folder / "all-opened", **model.all_opened["hf_overrides"])
    default = changed(model.published, folder / "default", **model.default["hf_overrides"])
    engines = []
    for method in METHODS:
        for name, target in (("dense", model.standard), ("all opened", all_opened), ("default", default)):
            config = {"method": method, "num_speculative_tokens": 3}
            if method == "ngram":
                config |= {"prompt_lookup_max": 3, "prompt_lookup_min": 1}
            else:
                config["model"] = str(target if method == "draft_model" else draft)
            options = {"dtype": model.dtype, "speculative_config": config}
            engines.append(engine(f"{method}: {name}", target, cases(model.some_ids), **options))
    # Each of the first three alone: numba, which finds drafts in the text, keeps vLLM 0.32 from starting another engine
    # in a process (it looks at every attribute of every module, and llvmlite has some that do not bear it).
    return together(*(run(folder, one) for one in engines[:3]), run(folder, *engines[3:]))


@pytest.mark.parametrize("method", METHODS)
def test_all_clusters_opened_is_dense(outputs, method):
    dense, opened = outputs.outputs(f"{method}: dense"), outputs.outputs(f"{method}: all opened")
    for case in dense:
        assert_same_tokens(case, dense[case], opened[case])
        assert_same_logprobs(case, dense[case], opened[case], 1e-4)
    accepted = [outputs.engines[f"{method}: {name}"]["speculation"] for name in ("dense", "all opened")]
    assert accepted[0] == accepted[1]


@pytest.mark.parametrize("method", METHODS)
def test_named_tokens_are_exact_at_the_published_probes(outputs, method):
    dense, default = outputs.outputs(f"{method}: dense"), outputs.outputs(f"{method}: default")
    for case in ("regex", "allowed ids"):
        assert_same_tokens(case, dense[case], default[case])


def test_drafts_are_accepted(outputs):
    for name in ("dense", "all opened", "default"):
        counted = outputs.engines[f"draft_model: {name}"]["speculation"]
        assert counted["accepted"] > 0.15 * counted["drafted"]


@pytest.mark.parametrize("method", ["draft_model", "eagle"])
def test_drafts_use_the_two_stage_head(outputs, method):
    rows = {m: outputs.engines[f"{m}: all opened"]["counts"]["two_stage"] for m in ("ngram", method)}
    assert rows[method] > rows["ngram"]
