"""All features of decoding, batches of 1 to 8: the two-stage head's outputs beside dense vLLM's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from comparison import assert_same_logprobs, assert_same_tokens
from decoding_cases import batches, naming, shortened, unconstrained
from engines import engine, run
from served_models import REAL, TINY

pytestmark = pytest.mark.vllm
NAMED = "a request's grammar, bias or allowed ids name tokens"


@pytest.fixture(scope="module", params=[*TINY, *REAL])
def outputs(request, served, tmp_path_factory):
    """One process for each model: dense, all clusters opened, the published number of probes, turned off."""
    model = served(request.param)
    ids = list(model.some_ids)
    free, named = batches() | unconstrained(ids), naming(ids)
    if request.param in REAL:
        free, named = shortened(batches((1, 4, 8)) | unconstrained(ids), 6), shortened(naming(ids), 6)
    few = {name: (free | named)[name] for name in ("batch 8", "sampled", "logprobs", "regex")}
    options = {"dtype": model.dtype}
    report = run(
        tmp_path_factory.mktemp(request.param),
        engine("dense", model.standard, free | named, **options),
        engine("all opened", model.published, free | named, **options, **model.all_opened),
        engine("default", model.published, free | named, **options, **model.default),
        engine("off", model.published, few, env={"FLASHHEAD_ENABLED": "0"}, **options),
    )
    tolerance = 1e-4 if model.dtype == "float32" else 0.13
    return SimpleNamespace(run=report, free=free, named=named, tolerance=tolerance)


def test_all_clusters_opened_is_dense(outputs):
    dense, opened = outputs.run.outputs("dense"), outputs.run.outputs("all opened")
    for case in outputs.free | outputs.named:
        assert_same_tokens(case, dense[case], opened[case])
        assert_same_logprobs(case, dense[case], opened[case], outputs.tolerance)
    assert outputs.run.engines["all opened"]["counts"]["two_stage"] > 100


def test_named_tokens_are_exact_at_the_published_probes(outputs):
    dense, default = outputs.run.outputs("dense"), outputs.run.outputs("default")
    for case in outputs.named:
        rows = (1, 3) if case == "mixed" else range(len(dense[case]))  # the others of "mixed" name no tokens
        for row in rows:
            assert_same_tokens(case, [dense[case][row]], [default[case][row]])
            assert_same_logprobs(case, [dense[case][row]], [default[case][row]], outputs.tolerance)


def test_only_rows_that_name_tokens_are_dense(outputs):
    counts = outputs.run.engines["default"]["counts"]
    assert set(counts["dense"]) == {NAMED}
    assert 0 < counts["dense"][NAMED] < counts["two_stage"]


def test_turned_off_is_dense_bit_for_bit(outputs):
    dense, off = outputs.run.outputs("dense"), outputs.run.outputs("off")
    assert off == {case: dense[case] for case in off}
    counts = outputs.run.engines["off"]["counts"]
    assert counts["two_stage"] == 0
    assert set(counts["dense"]) == {"FLASHHEAD_ENABLED=0"}
    assert counts["dense"]["FLASHHEAD_ENABLED=0"] > 0
    assert outputs.run.said("The dense head is used: FLASHHEAD_ENABLED=0.") == 1
