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
    """What an export does between reading rows and states and writing the index, but without always-scored tokens."""
    import torch

    from flashhead_edge.index.build import IndexOptions, build_index
    from flashhead_edge.lm_head import LmHead

    torch.set_num_threads(job["threads"])
    baseline = peak_rss_bytes()
    head, states = LmHead(np.load(job["rows"])), np.load(job["states"])
    options = IndexOptions(num_clusters_override=job["num_clusters"], always_scored=0, seed=job["seed"])
    stages: dict[str, float] = {}
    start = latest = time.perf_counter()

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal latest
        del done, total
        now = time.perf_counter()
        stages[stage] = stages.get(stage, 0.0) + now - latest
        latest = now

    index = build_index(head, states, options, num_probes=1, progress=progress)
    seconds = time.perf_counter() - start
    _save(job, index.token_order, index.centroids, index.centroid_bias + index.selection_offset)
    return {"baseline_rss_bytes": baseline, "seconds": seconds, "stages": stages}


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
