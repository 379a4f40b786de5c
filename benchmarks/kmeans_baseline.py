"""The published recipe that our clustering is compared with: spherical k-means, then balancing to equal sizes.

k-means is faiss's, on unit rows with unit centroids. It knows nothing of sizes, so a greedy pass follows: tokens go to
the nearest centroid that still has room, those first that would lose most by their second choice.
"""

from __future__ import annotations

import time

import faiss
import numpy as np
import numpy.typing as npt

#: Nearest centroids that a token may choose from in one pass of the balancing.
_CHOICES = 32
_ROWS_AT_ONCE = 16384


def normalize(rows: npt.NDArray[np.float32]) -> None:
    """Scale rows to unit length in place; rows of zeros stay."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)


def spherical_kmeans(
    rows: npt.NDArray[np.float32], num_clusters: int, *, iterations: int, seed: int
) -> npt.NDArray[np.float32]:
    """Unit centroids [K, H] float32 of unit rows [V, H]: all rows take part in every iteration."""
    kmeans = faiss.Kmeans(
        rows.shape[1],
        num_clusters,
        spherical=True,
        niter=iterations,
        nredo=1,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=1 << 30,
    )
    kmeans.train(rows)
    return kmeans.centroids


def balance(rows: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32], capacity: int) -> npt.NDArray[np.int64]:
    """Assign every row to a near centroid, at most ``capacity`` to each.

    Args:
        rows: [V, H] float32, V at most K x capacity.
        centroids: [K, H] float32.
        capacity: C.

    Returns:
        Members of each cluster, [K, C] int64, -1 in empty slots.
    """
    members = np.full((len(centroids), capacity), -1, dtype=np.int64)
    filled = np.zeros(len(centroids), dtype=np.int64)
    waiting = np.arange(len(rows))
    while len(waiting):
        room = np.flatnonzero(filled < capacity)
        similarity, choices = _nearest(rows, waiting, centroids[room])
        # Regret: how much worse the second choice is.
        regret = similarity[:, 0] - similarity[:, min(1, similarity.shape[1] - 1)]
        order = np.argsort(-regret, kind="stable")
        left = []
        for token, chosen in zip(waiting[order].tolist(), room[choices[order]].tolist(), strict=True):
            cluster = next((cluster for cluster in chosen if filled[cluster] < capacity), None)
            if cluster is None:
                left.append(token)
                continue
            members[cluster, filled[cluster]] = token
            filled[cluster] += 1
        waiting = np.array(left, dtype=np.int64)
    return members


def _nearest(
    rows: npt.NDArray[np.float32], tokens: npt.NDArray[np.int64], centroids: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Similarity and number of each token's nearest centroids, nearest first, [n, m]."""
    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    count = min(_CHOICES, len(centroids))
    parts = [index.search(rows[tokens[i : i + _ROWS_AT_ONCE]], count) for i in range(0, len(tokens), _ROWS_AT_ONCE)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def cluster(
    rows: npt.NDArray[np.float32], num_clusters: int, *, iterations: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], dict[str, float]]:
    """The whole recipe; rows are normalised in place.

    Args:
        rows: [V, H] float32, used up.
        num_clusters: K.
        iterations: Iterations of k-means.
        seed: Its seed.

    Returns:
        Members [K, ceil(V / K)], unit centroids [K, H] and the seconds of each stage.
    """
    times = [time.perf_counter()]
    normalize(rows)
    centroids = spherical_kmeans(rows, num_clusters, iterations=iterations, seed=seed)
    times.append(time.perf_counter())
    members = balance(rows, centroids, -(-len(rows) // num_clusters))
    times.append(time.perf_counter())
    return members, centroids, {"k-means": times[1] - times[0], "balancing": times[2] - times[1]}
