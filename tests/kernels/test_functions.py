"""The kernels, in Triton's interpreter, and the same in plain torch, against the oracle in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashhead_edge.lm_head import LmHead
from flashhead_edge.quantize import quantize_rows
from tests.kernels.cases import FEATURES, ROWS, SHAPES, STATES
from tests.kernels.tiny_kernels import check_candidates, check_full_width, stage1, states_of, tiny_head
from tests.tiny_heads import random_index, table_rows

ALWAYS = (0, 3, 27, 59)


def score(functions, tiny, states, probes):
    return functions.score_candidates(states, probes, *tiny.tensors.arguments())


def full_width(functions, tiny, states, products, probes):
    head, columns = tiny.tensors, tiny.columns
    offset = torch.from_numpy(tiny.index.selection_offset)
    estimates = functions.open_clusters(products, offset, columns.estimate_offset, head.activation, probes)
    exact, best = functions.score_opened(states, estimates, *head.arguments(), probes)
    size = head.token_order.shape[1]
    return functions.spread_logits(exact, best, estimates, columns.slot_of_token, head.activation, size)


@pytest.mark.parametrize("by_token", [False, True], ids=["by-cluster", "by-token"])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_candidates_of_every_type(functions, features, rows, by_token):
    tiny = tiny_head(149, 40, 6, 4, rows=rows, by_token=by_token, always=ALWAYS, **features)
    states = states_of(3, 40)
    check_candidates(tiny, states, score(functions, tiny, states, stage1(tiny, states, 4)[1]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_candidates_of_every_shape(functions, shape):
    vocab, width, size, probes, batch = shape
    tiny = tiny_head(vocab, width, size, probes, always=ALWAYS)
    states = states_of(batch, width)
    for kind in (torch.int64, torch.int32):
        check_candidates(tiny, states, score(functions, tiny, states, stage1(tiny, states, probes)[1].to(kind)))


@pytest.mark.parametrize("dtype", STATES, ids=str)
@pytest.mark.parametrize("by_token", [False, True], ids=["by-cluster", "by-token"])
@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_full_width_logits(functions, features, by_token, dtype):
    rows = str(dtype).removeprefix("torch.")
    tiny = tiny_head(149, 40, 6, 4, rows=rows, by_token=by_token, always=ALWAYS, logits=dtype, **features)
    states = states_of(3, 40, dtype)
    products, _ = stage1(tiny, states, 4)
    check_full_width(tiny, states, products, full_width(functions, tiny, states, products, 4))


def test_a_width_of_several_blocks(functions):
    tiny = tiny_head(2100, 16, 50, 3)
    states = states_of(2, 16)
    products, _ = stage1(tiny, states, 3)
    check_full_width(tiny, states, products, full_width(functions, tiny, states, products, 3))


def test_clusters_can_be_impossible(functions):
    tiny = tiny_head(149, 40, 6, 4, always=ALWAYS, logit_softcap=30.0)
    tiny.columns.estimate_offset.fill_(-torch.inf)
    states = states_of(2, 40)
    products, _ = stage1(tiny, states, 4)
    logits = full_width(functions, tiny, states, products, 4)
    for row, ids in zip(logits, tiny.oracle.run(states.numpy()).candidate_ids, strict=True):
        assert sorted(torch.isfinite(row).nonzero().flatten().tolist()) == sorted(ids[ids >= 0])


def test_ties_go_to_the_lowest_id(functions):
    rows = np.random.default_rng(0).integers(-1, 2, size=(149, 40)).astype(np.float32)  # no order of sums matters
    best = np.ones(40, np.float32)
    rows[[7, 60, 61, 130]] = best
    rows[[100, 12]] = -best
    index = random_index(LmHead(rows), 6)
    arguments = (torch.from_numpy(table_rows(LmHead(rows), index)), torch.from_numpy(index.token_order))
    states = torch.from_numpy(np.stack([best, -best, np.zeros_like(best)]))
    probes = torch.arange(index.num_clusters).repeat(3, 1)
    activation = torch.tensor([1.0, 0.0, 0.0])
    tokens, _, _ = functions.score_candidates(states, probes, *arguments, activation, None, None, index.num_clusters)
    assert tokens.tolist() == [7, 12, 0]


def test_negative_zero_is_zero(functions):
    rows = torch.tensor([[[0.0], [-1.0]]])  # token 1 has logit 0, token 0 minus 0
    order = torch.tensor([[1, 0]], dtype=torch.int32)
    arguments = (rows, order, torch.tensor([1.0, 0.0, 0.0]), None, None, 1)
    tokens, _, _ = functions.score_candidates(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64), *arguments)
    assert tokens.tolist() == [0]


@pytest.mark.parametrize("dtype", STATES, ids=str)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("clusters", "width", "batch"), [(5, 40, 1), (37, 300, 3), (16, 32, 64), (3, 17, 2)])
def test_scores_of_clusters(functions, clusters, width, batch, bits, dtype):
    random = np.random.default_rng(clusters)
    quantized = quantize_rows(random.normal(size=(clusters, width)).astype(np.float32), bits)
    bias = random.normal(size=clusters).astype(np.float32)
    states = states_of(batch, width, dtype)
    codes, scales = torch.from_numpy(quantized.codes), torch.from_numpy(quantized.float_scales)
    found = functions.score_clusters(states, codes, scales, torch.from_numpy(bias), bits)
    expected = states.float().numpy().astype(np.float64) @ quantized.dequantize().T + bias
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-4)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape(functions, data):
    vocab = data.draw(st.integers(40, 200), "V")
    width = data.draw(st.integers(1, 80), "H")
    size = data.draw(st.integers(1, 40), "C")
    probes = data.draw(st.integers(1, -(-vocab // size)), "P")
    batch = data.draw(st.integers(1, 4), "B")
    always = tuple(sorted(data.draw(st.sets(st.integers(0, vocab - 1), max_size=20), "always")))
    dtype = data.draw(st.sampled_from(STATES), "states")
    tiny = tiny_head(
        vocab,
        width,
        size,
        probes,
        always=always,
        seed=vocab,
        logits=dtype,
        rows=data.draw(st.sampled_from(ROWS), "rows"),
        by_token=data.draw(st.booleans(), "by token"),
        **data.draw(st.sampled_from(list(FEATURES.values())), "features"),
    )
    states = states_of(batch, width, dtype, seed=probes)
    products, chosen = stage1(tiny, states, probes)
    check_candidates(tiny, states, score(functions, tiny, states, chosen))
    check_full_width(tiny, states, products, full_width(functions, tiny, states, products, probes))


def test_among_equal_clusters_the_first_are_opened(functions):
    products = torch.tensor([[1.0, 3.0, 1.0, 0.0, 1.0, -2.0], [-0.0, 0.0, -0.0, -1.0, 0.0, 0.0]])
    zeros, activation = torch.zeros(6), torch.tensor([1.0, 0.0, 0.0])
    for probes in range(1, 7):
        estimates = functions.open_clusters(products, zeros, zeros, activation, probes)
        order = [[1, 0, 2, 4, 3, 5], [0, 1, 2, 4, 5, 3]]
        found = [row.isposinf().nonzero().flatten().tolist() for row in estimates.T]
        assert found == [sorted(row[:probes]) for row in order]
        closed = estimates.T.isfinite()
        assert torch.equal(estimates.T[closed], products[closed])
