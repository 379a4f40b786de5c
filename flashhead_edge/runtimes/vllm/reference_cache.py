"""``clustering_cache.safetensors``: clusters in the layout of the reference plugin, flash-head 0.1.

The tensors are ``centroids`` [1, 1, H, K] float32 and ``cluster_assignments`` [V]. That plugin opens the clusters whose
centroids' directions are nearest to the state's, so lengths of centroids say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import BundleError
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.tensor_files import write_tensors

if TYPE_CHECKING:
    import torch

CACHE_FILE = "clustering_cache.safetensors"
#: Slots of the table for each token, beyond which the greatest cluster is too great for a table.
_MOST_SLOTS = 32
#: Clusters compared with their rows at a time, which bounds the extra memory.
_CHUNK = 512


def save_reference_cache(index: HeadIndex, rows: npt.NDArray[np.generic], path: Path) -> None:
    """Write clusters as the reference plugin stores them: who is where, and the mean row of each cluster.

    That plugin takes only clusters of one size without holes, so it refuses those of an index with always-scored
    tokens.

    Args:
        index: The index.
        rows: The table, [T, C, H] in the order of ``index.token_order``.
        path: File to write.
    """
    means = np.zeros((len(index.token_order), index.hidden_size), dtype=np.float32)
    for cluster, ids in enumerate(index.token_order):
        if (ids >= 0).any():
            means[cluster] = rows[cluster][ids >= 0].mean(axis=0, dtype=np.float32)
    assignments = (index.slot_of_token // index.cluster_size).astype(np.int64)
    write_tensors(path, {"centroids": means.T[None, None], "cluster_assignments": assignments})


def load_reference_cache(path: Path, always_scored: Sequence[int] = ()) -> HeadIndex:
    """Read clusters that were made for the reference plugin, of equal sizes or not.

    Args:
        path: The file.
        always_scored: Ids to score at every step.

    Returns:
        An index that opens the same clusters as that plugin. Its centroids have length 1: what they say of a closed
        cluster's tokens has no scale before :func:`scaled_to_rows`.

    Raises:
        BundleError: The file is damaged or holds something else.
    """
    centroids, cluster_of_token = _read(path)
    num_clusters, vocab_size = len(centroids), len(cluster_of_token)
    always = np.unique(np.array([token for token in always_scored if 0 <= token < vocab_size], dtype=np.int64))
    rest = np.setdiff1d(np.arange(vocab_size), always)
    sizes = np.bincount(cluster_of_token[rest], minlength=num_clusters)
    size = max(1, int(sizes.max(initial=1)))
    if num_clusters * size > _MOST_SLOTS * vocab_size:
        raise BundleError(
            f"{path.name}: its clusters are too unequal.",
            found=f"{num_clusters} clusters, the greatest of {size} of {vocab_size} tokens",
            hint="export the model with flashhead-edge, which makes clusters of one size",
        )
    table = np.full((num_clusters + -(-len(always) // size), size), -1, dtype=np.int32)
    by_cluster = rest[np.argsort(cluster_of_token[rest], kind="stable")]
    table[:num_clusters][np.arange(size) < sizes[:, None]] = by_cluster
    table[num_clusters:].flat[: len(always)] = always
    nothing = np.zeros(num_clusters, dtype=np.float32)
    return HeadIndex(table, centroids, nothing, nothing, nothing, vocab_size)


def scaled_to_rows(index: HeadIndex, rows: torch.Tensor, first_token: int) -> HeadIndex:
    """Give centroids of length 1 the length that rows have along them on average.

    A centroid's product is then about the mean logit of its cluster, and the same clusters are opened.

    Args:
        index: What :func:`load_reference_cache` gave.
        rows: Rows of tokens in order, [W, H]; others than tokens' may follow.
        first_token: Id of the first row.
    """
    import torch

    local = index.token_order[: index.num_clusters] - first_token
    total, count = 0.0, 0
    for begin in range(0, index.num_clusters, _CHUNK):
        places = torch.from_numpy(local[begin : begin + _CHUNK]).to(rows.device).long()
        here = (index.token_order[begin : begin + _CHUNK][: len(places)] >= 0) & (local[begin : begin + _CHUNK] >= 0)
        inside = torch.from_numpy(here).to(rows.device) & (places < len(rows))
        members = rows[places.where(inside, 0)].float()
        directions = torch.from_numpy(index.centroids[begin : begin + _CHUNK]).to(rows.device)
        total += float((torch.einsum("kch,kh->kc", members, directions) * inside).sum())
        count += int(inside.sum())
    return replace(index, centroids=index.centroids * np.float32(total / max(1, count)))


def _read(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Centroids of length 1, [K, H], and the cluster of every token, [V]."""
    from safetensors import SafetensorError, safe_open

    wanted = ("centroids", "cluster_assignments")
    try:
        with safe_open(path, framework="numpy") as file:
            found = set(file.keys())
            tensors = [file.get_tensor(name) for name in wanted if name in found]
    except (SafetensorError, OSError, TypeError) as error:  # a TypeError is a type that numpy lacks
        raise BundleError(
            f"{path.name} cannot be read.", found=error, hint="copy or download the folder again"
        ) from error
    if len(tensors) < len(wanted):
        raise BundleError(f"{path.name} holds no clusters.", found=sorted(found), expected=", ".join(wanted))
    centroids, clusters = tensors
    if (
        centroids.ndim != 4
        or centroids.shape[:2] != (1, 1)
        or centroids.dtype.kind != "f"
        or clusters.ndim != 1
        or clusters.dtype.kind not in "iu"
        or not (centroids.size and len(clusters))
    ):
        raise BundleError(
            f"{path.name} holds no clusters.",
            found=f"centroids {centroids.dtype} {list(centroids.shape)}, "
            f"cluster_assignments {clusters.dtype} {list(clusters.shape)}",
            expected="centroids [1, 1, H, K] float32, cluster_assignments [V] int64",
        )
    rows = np.ascontiguousarray(centroids[0, 0].T, dtype=np.float32)
    if clusters.min() < 0 or clusters.max() >= len(rows):
        raise BundleError(
            f"{path.name}: tokens are in clusters that it does not have.",
            found=f"{clusters.min()} to {clusters.max()}",
            expected=f"0 to {len(rows) - 1}",
        )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, np.float32(1)).astype(np.float32), clusters.astype(np.int64)
