"""A device's part of a head: the native library and plain torch say the same, and torch waits for no device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from flashhead_edge import native
from flashhead_edge.kernels import torch_functions
from flashhead_edge.kernels.head_tensors import HeadTensors, activation_values
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.runtimes.vllm.shard import _say_slow, build_shard
from tests.tiny_heads import random_head, random_index, random_states

VOCAB, HIDDEN, SIZE, PROBES = 149, 40, 6, 5
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def shard_of(dtype, first=0, after=VOCAB, *, padding=3, bias=False):
    """Part of a random head whose weight is padded, as vLLM's is."""
    head = random_head(VOCAB, HIDDEN, bias=bias)
    index = random_index(head, SIZE, always=(0, 60, 148))
    rows = torch.full((after - first + padding, HIDDEN), 9.0, dtype=dtype)
    rows[: after - first] = torch.from_numpy(head.rows[first:after]).to(dtype)
    row_bias = None
    if head.bias is not None:
        row_bias = torch.full((len(rows),), 1e4)
        row_bias[: after - first] = torch.from_numpy(head.bias[first:after])
    return build_shard(index, rows, row_bias, first, after - first, PROBES), index, rows


@pytest.fixture
def without_library(monkeypatch):
    monkeypatch.setenv(native.SWITCH, "0")


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_paths_say_the_same(dtype, bias, monkeypatch):
    if not native.is_available():
        pytest.skip(f"no native library: {native.unavailable_because()}")
    states = torch.from_numpy(random_states(7, HIDDEN)).to(dtype)
    fast = shard_of(dtype, bias=bias)[0]
    monkeypatch.setenv(native.SWITCH, "0")
    plain = shard_of(dtype, bias=bias)[0]
    assert (fast.path, plain.path) == ("native", "torch")
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(fast.logits(states), plain.logits(states), rtol=3 * eps, atol=max(3 * eps, 1e-4))


@pytest.mark.usefixtures("without_library")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_plain_torch_is_exact_where_clusters_are_open(dtype):
    shard, index, rows = shard_of(dtype)
    states = torch.from_numpy(random_states(7, HIDDEN)).to(dtype)
    scored = shard.score(states)
    logits = shard.fill(scored, scored.best).float()
    exact = states.float() @ rows.float().T
    cluster = torch.from_numpy(index.slot_of_token // SIZE)
    is_open = torch.cat([scored.estimates.T.isposinf(), torch.ones(7, 9, dtype=torch.bool)], dim=1)
    opened = is_open[:, cluster]
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(
        logits[:, :VOCAB][opened], exact[:, :VOCAB][opened], rtol=2 * eps, atol=max(2 * eps, 1e-5)
    )
    best = logits[:, :VOCAB].where(opened, -torch.inf).amax(dim=1, keepdim=True)
    assert (logits[:, :VOCAB].where(~opened, -torch.inf) < best).all()
    assert logits[:, VOCAB:].isneginf().all()


@pytest.mark.parametrize("library", ["0", "1"])
def test_parts_of_a_vocabulary_make_the_whole(library, monkeypatch):
    monkeypatch.setenv(native.SWITCH, library)
    states = torch.from_numpy(random_states(4, HIDDEN))
    whole = shard_of(torch.float32)[0].logits(states)[:, :VOCAB]
    parts = [shard_of(torch.float32, first, after)[0] for first, after in ((0, 80), (80, VOCAB))]
    scored = [part.score(states) for part in parts]
    best = torch.stack([one.best for one in scored]).amax(dim=0)
    found = [part.fill(one, best) for part, one in zip(parts, scored, strict=True)]
    torch.testing.assert_close(torch.cat([found[0][:, :80], found[1][:, :69]], dim=1), whole)
    assert all(logits.is_contiguous() for logits in found)


@pytest.mark.usefixtures("without_library")
@pytest.mark.parametrize("count", [1, 5])
def test_torchs_path_waits_for_no_device_and_has_fixed_shapes(count):
    """Tracing with fake tensors fails at .item(), nonzero and every other look at values, as recording would."""
    shard, _, _ = shard_of(torch.bfloat16)
    states = torch.from_numpy(random_states(count, HIDDEN)).to(torch.bfloat16)
    graph = make_fx(lambda x: shard.logits(x), tracing_mode="fake", _allow_non_fake_inputs=True)(states)
    assert torch.equal(graph(states), shard.logits(states))
    others = torch.from_numpy(random_states(count, HIDDEN, seed=5)).to(torch.bfloat16)
    assert torch.equal(graph(others), shard.logits(others))


@pytest.mark.parametrize("count", [1, 5])
def test_what_the_operators_run_waits_for_no_device_either(count):
    """An operator is one node of a trace: its own code is traced here."""
    shard, _, _ = shard_of(torch.bfloat16)
    states = torch.from_numpy(random_states(count, HIDDEN)).to(torch.bfloat16)
    codes = quantize_rows(random_states(9, HIDDEN), 8)
    tensors = [torch.from_numpy(array) for array in (codes.codes, codes.scales, np.zeros(9, np.float32))]
    order = torch.arange(54, dtype=torch.int32).view(9, 6)
    head = HeadTensors(shard.rows, order, 9, torch.tensor(activation_values(dtype=torch.bfloat16)))
    slots = torch.arange(len(shard.rows), dtype=torch.int32).where(torch.arange(len(shard.rows)) < 54, -1)

    def run(x):
        products = torch_functions.score_clusters(x, *tensors, 8)
        estimates = torch_functions.open_clusters(products, torch.zeros(9), torch.zeros(9), head.activation, 3)
        exact, best = torch_functions.score_opened(x, estimates, *head.arguments(), 3)
        return torch_functions.spread_logits(exact, best, estimates, slots, head.activation, 6)

    graph = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(states)
    others = torch.from_numpy(random_states(count, HIDDEN, seed=5)).to(torch.bfloat16)
    assert torch.equal(graph(others), run(others))


def test_the_weight_is_not_copied():
    shard, _, rows = shard_of(torch.bfloat16)
    assert shard.rows is rows


@pytest.mark.usefixtures("without_library")
def test_plain_torch_on_a_cpu_is_said_once(caplog):
    _say_slow.cache_clear()
    shard_of(torch.float32)
    shard_of(torch.float32)
    (record,) = caplog.records
    assert "FLASHHEAD_EDGE_NATIVE is 0" in record.getMessage()
