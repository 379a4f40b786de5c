"""One clustering in a process of its own, so that its peak memory is its own; started by ``clustering.py``.

Reads a job as JSON from the command line, writes the clusters to an .npz file and the figures to stdout as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from flashhead_edge.memory import peak_rss_bytes

OURS, KMEANS = "balanced bisection", "spherical k-means"


def main() -> None:
    """Run the job."""
    job = json.loads(sys.argv[1])
    figures = {OURS: _ours, KMEANS: _kmeans}[job["method"]](job)
    figures["peak_rss_bytes"] = peak_rss_bytes()
    print(json.dumps(figures))


def _ours(job: dict[str, Any]) -> dict[str, Any]:
    """What an export does between reading rows and states and looking for always-scored tokens."""
    import torch

    from flashhead_edge.index.build import IndexOptions
    from flashhead_edge.index.clusters import cluster_rows, cluster_variances, mean_rows, selection_offset
    from flashhead_edge.index.metric import activation_metric
    from flashhead_edge.lm_head import LmHead

    torch.set_num_threads(job["threads"])
    baseline = peak_rss_bytes()
    head, states = LmHead(np.load(job["rows"])), torch.from_numpy(np.load(job["states"]))
    options = IndexOptions()
    times = [time.perf_counter()]
    stages: dict[str, float] = {}

    def lap(stage: str) -> None:
        times.append(time.perf_counter())
        stages[stage] = stages.get(stage, 0.0) + times[-1] - times[-2]

    def progress(stage: str, done: int, total: int) -> None:
        del done, total
        lap(stage)

    metric = activation_metric(states, options.rank)
    lap("metric")
    members = cluster_rows(
        head,
        metric,
        job["num_clusters"],
        alpha=options.alpha,
        rounds=options.rounds,
        refinements=options.refinements,
        seed=job["seed"],
        progress=progress,
    )
    centroids, _ = mean_rows(head, members)
    variance = cluster_variances(head, metric, members, centroids, "cpu")
    offset = selection_offset(variance, options.spread_weight, None)
    lap("centroids")
    _save(job, members.numpy(), centroids.numpy(), offset.numpy())
    return {"baseline_rss_bytes": baseline, "seconds": times[-1] - times[0], "stages": stages}


def _kmeans(job: dict[str, Any]) -> dict[str, Any]:
    import faiss

    from benchmarks import kmeans_baseline

    faiss.omp_set_num_threads(job["threads"])
    baseline = peak_rss_bytes()
    rows = np.load(job["rows"])
    start = time.perf_counter()
    members, centroids, stages = kmeans_baseline.cluster(
        rows, job["num_clusters"], iterations=job["iterations"], seed=job["seed"]
    )
    seconds = time.perf_counter() - start
    _save(job, members, centroids, np.zeros(len(centroids), np.float32))
    return {"baseline_rss_bytes": baseline, "seconds": seconds, "stages": stages}


def _save(job: dict[str, Any], members: np.ndarray, centroids: np.ndarray, offset: np.ndarray) -> None:
    np.savez(Path(job["clusters"]), members=members, centroids=centroids, offset=offset)


if __name__ == "__main__":
    main()
