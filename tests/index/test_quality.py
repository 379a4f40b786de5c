"""Quality against the definition, in double precision."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_heads import dense_logits, head_bundle, random_head, random_index, random_states

from flashhead_edge.errors import OptionError
from flashhead_edge.index import quality
from flashhead_edge.index.quality import measure_positions
from flashhead_edge.runtimes import open_head

VOCAB, WIDTH = 90, 16


@pytest.fixture(params=[{}, {"bias": True, "logit_scale": 0.5}, {"logit_softcap": 6.0}], ids=str)
def head(request):
    return random_head(VOCAB, WIDTH, **request.param)


@pytest.fixture
def index(head):
    return random_index(head, 6, always=(0, 1, 2))


def measure(tmp_path, head, index, num_probes, states, following, **options):
    bundle = head_bundle(tmp_path / "bundle", head, index, num_probes)
    return measure_positions(head, open_head(bundle, threads=1), index, states, following, **options)


def test_every_cluster_open_is_the_dense_head(tmp_path, head, index):
    states = random_states(20, WIDTH)
    following = np.arange(20)
    scores = measure(tmp_path, head, index, index.num_clusters, states, following)
    result = scores.summary(np.full(20, "all"))
    assert (result.containment, result.agreement) == (1.0, 1.0)
    assert result.regret_mean == 0
    assert result.kl_mean == pytest.approx(0, abs=1e-6)
    assert result.total_variation_mean == pytest.approx(0, abs=1e-5)
    assert result.perplexity_dense == pytest.approx(result.perplexity_two_stage, rel=1e-5)
    logits = dense_logits(head, states)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert result.perplexity_dense == pytest.approx(np.exp(-logs[np.arange(20), following].mean()), rel=1e-5)


def test_each_number_is_what_it_says(tmp_path, head, index, monkeypatch):
    monkeypatch.setattr(quality, "_NUMBERS_AT_ONCE", 700)  # batches of 7, and of 2 in the runtime
    states = random_states(40, WIDTH)
    following = np.where(np.arange(40) % 3 == 0, -1, np.arange(40))
    seen = []
    scores = measure(
        tmp_path, head, index, 2, states, following, progress=lambda _, done, total: seen.append((done, total))
    )
    assert seen == [(done, 40) for done in (7, 14, 21, 28, 35, 40)]
    logits = dense_logits(head, states)
    output = open_head_output(tmp_path, states)
    dense = logits.argmax(axis=1)
    np.testing.assert_array_equal(scores.dense_tokens, dense)
    np.testing.assert_array_equal(scores.tokens, output.token_ids)
    contained = [token in ids for token, ids in zip(dense, output.candidate_ids, strict=True)]
    assert scores.contained.tolist() == contained
    assert 0 < np.mean(contained) < 1
    rows = np.arange(40)
    np.testing.assert_allclose(scores.regret, logits.max(axis=1) - logits[rows, output.token_ids], atol=1e-5)
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    distribution = quality.VocabularyDistribution(index, logit_scale=head.logit_scale, logit_softcap=head.logit_softcap)
    logs = distribution.drawn_log_probabilities(logits, output)
    np.testing.assert_allclose(scores.kl, (truth * (np.log(truth) - logs)).sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(scores.total_variation, np.abs(truth - np.exp(logs)).sum(axis=1) / 2, atol=1e-5)
    known = following >= 0
    assert np.isnan(scores.surprise_dense[~known]).all()
    total = distribution.log_partition_beside(output, logits, np.maximum(following, 0))
    np.testing.assert_allclose(scores.surprise_two_stage[known], (total - logits[rows, following])[known], atol=1e-5)


def open_head_output(tmp_path, states):
    from flashhead_edge.bundle import Bundle

    return open_head(Bundle.open(tmp_path / "bundle"), threads=1).run(states)


def test_summaries_by_domain(tmp_path):
    head = random_head(VOCAB, WIDTH)
    states = random_states(30, WIDTH)
    scores = measure(tmp_path, head, random_index(head, 6), 2, states, np.full(30, -1))
    domain = np.array(["de"] * 10 + ["code"] * 20)
    result = scores.summary(domain)
    assert (result.perplexity_dense, result.perplexity_two_stage) == (None, None)
    assert result.per_domain["de"].positions == 10
    assert result.per_domain["de"].containment == scores.contained[:10].mean()
    assert result.per_domain["code"].agreement == (scores.tokens == scores.dense_tokens)[10:].mean()
    assert json.loads(json.dumps(result.as_dict()))["per_domain"]["code"]["positions"] == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": random_head(VOCAB + 1, WIDTH)}, "not the one that was clustered"),
        ({"hidden": random_states(3, WIDTH + 1)}, "hidden states do not fit"),
        ({"next_token": np.zeros(2, np.int64)}, "following tokens do not fit"),
        ({"next_token": np.full(3, VOCAB)}, "ids below 90"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    head = random_head(VOCAB, WIDTH)
    index = random_index(head, 6)
    runtime = open_head(head_bundle(tmp_path / "bundle", head, index, 2), "reference")
    arguments = {"head": head, "hidden": random_states(3, WIDTH), "next_token": np.zeros(3, np.int64), **change}
    with pytest.raises(OptionError, match=message):
        measure_positions(runtime=runtime, index=index, **arguments)
