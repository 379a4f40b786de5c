from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flashhead_edge.errors import BundleError, OptionError
from flashhead_edge.runtimes.base import HeadOutput
from flashhead_edge.sampling import Sampler, SamplingOptions
from flashhead_edge.token_scores import TokenScores

LOGITS = hnp.arrays(np.float32, st.integers(1, 12), elements=st.floats(-20, 20, width=32))
FILTERS = st.builds(
    SamplingOptions,
    temperature=st.floats(0.1, 4.0),
    top_k=st.integers(0, 6),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 1.0),
    seed=st.integers(0, 100),
)


def candidates(logits):
    """Ids in disorder, and padding with the id -1."""
    ids = np.random.default_rng(0).permutation(100)[: len(logits)]
    return np.append(ids, [-1, -1]).astype(np.int64), np.append(logits, [-np.inf, -np.inf]).astype(np.float32)


def scores_of(ids, logits):
    """All tokens are candidates, as a dense head has it."""
    output = HeadOutput(ids[:1], ids[None], logits[None], np.zeros((1, 1), np.float32))
    return TokenScores(output, np.zeros(1, np.float32))


def distribution(options, ids, logits):
    kept, probabilities = Sampler(options)._distribution(scores_of(ids, logits))
    return dict(zip(kept.tolist(), probabilities.tolist(), strict=True))


def reference(options, ids, logits):
    """The filters of transformers, in their order."""
    torch = pytest.importorskip("torch")
    from transformers.generation import logits_process as filters

    scores = torch.tensor(logits)[None]
    warpers = [filters.TemperatureLogitsWarper(options.temperature)]
    if options.top_k:
        warpers.append(filters.TopKLogitsWarper(options.top_k))
    if options.top_p < 1:
        warpers.append(filters.TopPLogitsWarper(options.top_p))
    if options.min_p:
        warpers.append(filters.MinPLogitsWarper(options.min_p))
    for warper in warpers:
        scores = warper(None, scores)
    probabilities = scores.softmax(-1)[0].double().numpy()
    return {int(i): float(p) for i, p in zip(ids, probabilities, strict=True) if p > 0}


@pytest.mark.parametrize("seed", range(60))
def test_filters_are_those_of_transformers(seed):
    random = np.random.default_rng(seed)
    options = SamplingOptions(
        temperature=float(random.uniform(0.2, 3)),
        top_k=int(random.integers(0, 30)),
        top_p=float(random.choice([1.0, random.uniform(0.1, 1.0)])),
        min_p=float(random.choice([0.0, random.uniform(0.0, 0.5)])),
    )
    ids, logits = candidates(random.normal(scale=3, size=40))
    ours, theirs = distribution(options, ids, logits), reference(options, ids, logits)
    assert ours.keys() == theirs.keys()
    assert [ours[i] for i in ours] == pytest.approx([theirs[i] for i in ours], rel=1e-4)


@given(logits=LOGITS, options=FILTERS)
def test_kept_tokens_are_the_likeliest_and_sum_to_one(logits, options):
    ids, logits = candidates(logits)
    kept = distribution(options, ids, logits)
    assert math.isclose(sum(kept.values()), 1.0, rel_tol=1e-9)
    lowest = min(logits[ids == i].item() for i in kept)
    assert all(logits[ids == i].item() <= lowest for i in ids[:-2] if i not in kept)
    assert -1 not in kept


@given(logits=LOGITS, options=FILTERS)
def test_draws_repeat_and_do_not_depend_on_the_order_of_candidates(logits, options):
    ids, logits = candidates(logits)
    order = np.random.default_rng(1).permutation(len(ids))
    one, other = Sampler(options), Sampler(options)
    for _ in range(5):
        assert one.choose(scores_of(ids, logits)) == other.choose(scores_of(ids[order], logits[order]))


@given(logits=LOGITS)
def test_greedy_takes_the_lowest_id_of_the_greatest(logits):
    ids, logits = candidates(logits)
    chosen = Sampler(SamplingOptions()).choose(scores_of(ids, logits))
    assert chosen == min(i for i, logit in zip(ids, logits, strict=True) if logit == logits.max())
    assert (
        Sampler(SamplingOptions(temperature=1.0, top_k=1, seed=0)).choose(scores_of(ids, logits))
        in ids[logits == logits.max()]
    )


@given(logits=LOGITS)
def test_logprobs_are_those_of_a_softmax(logits):
    ids, logits = candidates(logits)
    values = scores_of(ids, logits).logprobs(ids[:-2]).tolist()
    assert math.isclose(sum(map(math.exp, values)), 1.0, rel_tol=1e-6)
    assert max(values) <= 0.0
    assert values[int(logits.argmax())] == max(values)


def test_draws_follow_the_distribution():
    ids, logits = candidates(np.log([0.5, 0.3, 0.2]))
    sampler = Sampler(SamplingOptions(temperature=1.0, seed=0))
    drawn = [sampler.choose(scores_of(ids, logits)) for _ in range(4000)]
    shares = [drawn.count(i) / 4000 for i in ids[:3]]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_tiny_temperature_is_greedy_without_overflow():
    ids, logits = candidates([1.0, 3.0, 2.0])
    assert Sampler(SamplingOptions(temperature=1e-30)).choose(scores_of(ids, logits)) == ids[1]


def test_no_seed_draws_differently():
    ids, logits = candidates(np.zeros(90))
    draws = [
        [Sampler(SamplingOptions(temperature=1.0)).choose(scores_of(ids, logits)) for _ in range(8)] for _ in range(2)
    ]
    assert draws[0] != draws[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": 1.0, "top_k": -1},
        {"temperature": 1.0, "top_p": 0.0},
        {"temperature": 1.0, "top_p": 1.1},
        {"temperature": 1.0, "top_p": math.nan},
        {"temperature": 1.0, "min_p": -0.1},
        {"temperature": 1.0, "min_p": 1.1},
        {"seed": -1},
        {"top_k": 5},
        {"top_p": 0.9},
        {"min_p": 0.1},
    ],
    ids=str,
)
def test_options_are_checked(fields):
    with pytest.raises(OptionError) as caught:
        SamplingOptions(**fields)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("logits", [[math.nan, 1.0], [math.inf, 1.0], []], ids=["nan", "inf", "only padding"])
def test_logits_that_are_not_finite_are_an_error(logits):
    ids, logits = candidates(logits)
    with pytest.raises(BundleError, match="finite"):
        Sampler(SamplingOptions()).choose(scores_of(ids, logits))
