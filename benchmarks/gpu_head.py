"""Time of the two-stage head on a GPU beside the dense head, by batch, as the plugin of vLLM computes both.

Rows, centroids and states are random, in the sizes of models: states of a batch open other clusters each, which is the
worst for a batch. Every time is a median of many calls between which the caches are cleared, as the rest of a model
would; the heads take turns. Writes ``results/gpu-head.json``; needs an NVIDIA GPU: ``python -m benchmarks.gpu_head``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from triton.testing import do_bench

from benchmarks.models import RESULTS
from benchmarks.vllm_models import random_index
from benchmarks.vllm_speed import gpu_name
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.kernels import operators
from flashhead_edge.runtimes.vllm.operator_shard import OperatorShard
from flashhead_edge.runtimes.vllm.shard import build_shard

#: V and H.
HEADS = {
    "smollm2-135m": (49_152, 576),
    "gemma3-270m": (262_144, 640),
    "llama-3.2-1b": (128_256, 2048),
    "qwen3-1.7b": (151_936, 2048),
    "llama-3.1-8b": (128_256, 4096),
}
BATCHES = (1, 2, 4, 8, 12, 16, 32)
#: Bytes of a copy that measures the memory's bandwidth.
_COPY = 1 << 30
_HOST_CALLS = 200


def main() -> None:
    """Measure every head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu-head.json")
    arguments = parser.parse_args()
    report = {
        "gpu": gpu_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "dtype": "bfloat16",
        "copy_gb_s": round(copy_bandwidth(), 1),
        "one_launch_us": round(microseconds(recorded(torch.zeros(1, device="cuda").add_, 1)), 1),
        "rounds": arguments.rounds,
        "heads": [measure(name, arguments.rounds) for name in arguments.heads],
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")


def measure(name: str, rounds: int) -> dict[str, Any]:
    """One head at every batch size."""
    vocab, hidden = HEADS[name]
    torch.manual_seed(0)
    rows = torch.randn(vocab, hidden, device="cuda").bfloat16()
    probes = ExportOptions().probes(vocab)
    shard = build_shard(random_index(vocab, hidden), rows, None, 0, vocab, probes)
    assert isinstance(shard, OperatorShard)
    points = [at_batch(shard, batch, rounds) for batch in BATCHES]
    print(name, [(point["batch"], point["dense_us"], point["two_stage_us"]) for point in points], flush=True)
    clusters = shard.head.num_clusters
    return {
        "head": name,
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_clusters": clusters,
        "num_probes": probes,
        "points": points,
    }


def at_batch(shard: OperatorShard, batch: int, rounds: int) -> dict[str, Any]:
    """Both heads with B states, in turn, and the parts of ours."""
    states = torch.randn(batch, shard.rows.shape[1], device="cuda").bfloat16()
    calls: dict[str, Callable[[], Any]] = {
        "dense": lambda: torch.nn.functional.linear(states, shard.rows),
        "two_stage": lambda: shard.logits(states),
    }
    turns: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in calls if number % 2 else reversed(calls):
            turns[name].append(microseconds(calls[name]))
    scored = shard.score(states)
    ratios = [dense / ours for dense, ours in zip(turns["dense"], turns["two_stage"], strict=True)]
    return {
        "batch": batch,
        **{f"{name}_us": round(statistics.median(times), 1) for name, times in turns.items()},
        "ratio_p50": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "kernels_us": {name: round(microseconds(call), 1) for name, call in parts(shard, states).items()},
        "host_us": {name: round(host_microseconds(call), 1) for name, call in calls.items()},
        "clusters_opened": int(scored.estimates.isposinf().any(dim=1).sum()),
    }


def parts(shard: OperatorShard, states: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """The kernels of a call, each alone; every time includes one launch."""
    head, columns, scored = shard.head, shard.columns, shard.score(states)
    products = operators.score_clusters(shard.centroids, states)
    return {
        "score_clusters": recorded(operators.score_clusters, shard.centroids, states),
        "open_clusters": recorded(
            operators.open_clusters, head, columns, products, shard.selection_offset, shard.num_probes
        ),
        "score_opened": recorded(operators.score_opened, head, states, scored.estimates, shard.num_probes),
        "spread_logits": recorded(operators.spread_logits, head, columns, scored.exact, scored.best, scored.estimates),
    }


def recorded(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """A call as a CUDA graph, so that what launches cost the host is not in its time."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        function(*arguments)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function(*arguments)
    return graph.replay


def microseconds(call: Callable[[], Any]) -> float:
    """On the device, with cold caches."""
    return 1e3 * float(do_bench(call, warmup=10, rep=40, return_mode="median"))


def host_microseconds(call: Callable[[], Any]) -> float:
    """Until the call comes back, while the device is behind or ahead."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(_HOST_CALLS):
        call()
    seconds = time.perf_counter() - begin
    torch.cuda.synchronize()
    return 1e6 * seconds / _HOST_CALLS


def copy_bandwidth() -> float:
    """Bytes read and written by a copy, GB/s."""
    source = torch.empty(_COPY, dtype=torch.uint8, device="cuda").random_(256)
    target = torch.empty_like(source)
    return 2 * _COPY / microseconds(lambda: target.copy_(source)) / 1e3


if __name__ == "__main__":
    main()
