"""``clustering_cache.safetensors``: clusters in the layout of the reference plugin, flash-head 0.1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from flashhead_edge.index.head_index import HeadIndex

CACHE_FILE = "clustering_cache.safetensors"


def save_reference_cache(index: HeadIndex, rows: npt.NDArray[np.generic], path: Path) -> None:
    """Write clusters as the reference plugin stores them: who is where, and the mean row of each cluster.

    The tensors are ``centroids`` [1, 1, H, T] float32 and ``cluster_assignments`` [V] int64. That plugin takes only
    clusters of one size without holes, so it refuses those of an index with always-scored tokens.

    Args:
        index: The index.
        rows: The table, [T, C, H] in the order of ``index.token_order``.
        path: File to write.
    """
    from safetensors.numpy import save_file

    means = np.zeros((len(index.token_order), index.hidden_size), dtype=np.float32)
    for cluster, ids in enumerate(index.token_order):
        if (ids >= 0).any():
            means[cluster] = rows[cluster][ids >= 0].mean(axis=0, dtype=np.float32)
    assignments = (index.slot_of_token // index.cluster_size).astype(np.int64)
    save_file({"centroids": np.ascontiguousarray(means.T[None, None]), "cluster_assignments": assignments}, path)
