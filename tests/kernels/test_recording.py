"""Recorded logits are those of the launches, whatever comes between."""

from __future__ import annotations

import pytest
import torch

from flashhead_edge.kernels.recording import RecordedLogits
from flashhead_edge.runtimes.vllm.shard import build_shard
from tests.kernels.tiny_kernels import states_of
from tests.tiny_heads import random_head, random_index

VOCAB, HIDDEN, SIZE, PROBES = 1490, 64, 6, 30
pytestmark = pytest.mark.gpu


def shard_on(device, dtype):
    """Part of a padded vocabulary, as the plugin of vLLM builds it."""
    head = random_head(VOCAB, HIDDEN)
    rows = torch.full((VOCAB + 6, HIDDEN), 9.0, dtype=dtype)
    rows[:VOCAB] = torch.from_numpy(head.rows).to(dtype)
    return build_shard(random_index(head, SIZE, always=(0, 60)), rows.to(device), None, 0, VOCAB, PROBES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_gpu_says_what_the_cpu_says(dtype):
    gpu, cpu = shard_on("cuda", dtype), shard_on("cpu", dtype)
    assert gpu.path == "triton"
    eps = torch.finfo(dtype).eps
    for count in (1, 2, 3, 8, 17, 33):
        states = states_of(count, HIDDEN, dtype, seed=count)
        found = gpu.logits(states.cuda())
        assert found.dtype == dtype
        torch.testing.assert_close(found.cpu(), cpu.logits(states), rtol=3 * eps, atol=max(3 * eps, 1e-4))


@pytest.mark.parametrize("count", [1, 5, 16, 20])
def test_replays_are_the_launches_bit_for_bit(count):
    shard = shard_on("cuda", torch.bfloat16)
    kept = []
    for seed in range(4):
        states = states_of(count, HIDDEN, torch.bfloat16, seed=seed).cuda()
        scored = shard.score(states)
        kept.append((shard.logits(states), shard.fill(scored, scored.best)))
    for replayed, launched in kept:  # later replays change no earlier result
        assert torch.equal(replayed, launched)


def test_each_state_of_a_batch_is_as_alone():
    shard = shard_on("cuda", torch.bfloat16)
    states = states_of(13, HIDDEN, torch.bfloat16).cuda()
    assert torch.equal(shard.logits(states), torch.cat([shard.logits(state[None]) for state in states]))


def test_a_weight_that_moved_is_recorded_anew():
    rows = torch.nn.Parameter(torch.ones(4, 8, device="cuda"), requires_grad=False)
    recorded = RecordedLogits(lambda states: states @ rows.T, rows)
    states = torch.ones(1, 8, device="cuda")
    assert recorded(states).tolist() == [[8.0] * 4]
    rows.data = torch.full((4, 8), 2.0, device="cuda")
    assert recorded(states).tolist() == [[16.0] * 4]


def test_within_another_recording_it_is_part_of_that():
    shard = shard_on("cuda", torch.bfloat16)
    states = states_of(2, HIDDEN, torch.bfloat16).cuda()
    expected = shard.logits(states)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = shard.logits(states)
    found.zero_()
    graph.replay()
    assert torch.equal(found, expected)
