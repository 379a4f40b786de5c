"""``index.safetensors``: an index on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flashhead_edge.errors import BundleError
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.tensor_files import map_tensors, write_tensors

_TENSORS = {
    "token_order": (np.int32, 2),
    "centroids": (np.float32, 2),
    "centroid_bias": (np.float32, 1),
    "selection_offset": (np.float32, 1),
    "cluster_variance": (np.float32, 1),
}
_PROJECTION = "projection"


def save_index(index: HeadIndex, path: Path) -> None:
    """Write an index.

    Args:
        index: The index.
        path: File to write; the vocabulary size goes into its metadata.
    """
    tensors = {name: getattr(index, name) for name in _TENSORS}
    if index.projection is not None:
        tensors[_PROJECTION] = index.projection
    write_tensors(path, tensors, {"vocab_size": str(index.vocab_size)})


def load_index(path: Path) -> HeadIndex:
    """Map an index and check that it is one; centroids are read from the disk when they are used.

    Raises:
        BundleError: The file is damaged, or tokens are missing, doubled or out of range.
    """
    tensors, metadata = map_tensors(path)
    expected = _TENSORS | ({_PROJECTION: (np.float32, 2)} if _PROJECTION in tensors else {})
    for name, (dtype, ndim) in expected.items():
        array = tensors.get(name)
        if array is None or array.dtype != dtype or array.ndim != ndim:
            raise BundleError(
                f"{path.name} holds no index.",
                found="no such tensor" if array is None else f"{array.dtype} of shape {array.shape}",
                expected=f"{name} as {np.dtype(dtype).name} with {ndim} dimensions",
            )
    index = HeadIndex(**{name: tensors[name] for name in expected}, vocab_size=_vocab_size(path, metadata))
    ids = index.token_order[index.token_order >= 0]
    by_cluster = (index.centroid_bias, index.selection_offset, index.cluster_variance)
    fits = index.projection is None or index.projection.shape[0] == index.hidden_size
    if index.num_always_clusters < 0 or not fits or any(array.shape != (index.num_clusters,) for array in by_cluster):
        raise BundleError(f"{path.name}: its tensors do not fit each other.")
    if len(ids) != index.vocab_size or not np.array_equal(np.sort(ids), np.arange(index.vocab_size)):
        raise BundleError(
            f"{path.name}: the clusters do not hold every token once.",
            found=f"{len(ids)} ids",
            expected=f"0 to {index.vocab_size - 1}",
        )
    return index


def _vocab_size(path: Path, metadata: dict[str, str]) -> int:
    """V, from the file's metadata."""
    text = metadata.get("vocab_size", "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BundleError(f"{path.name} does not say its vocabulary size.", found=ascii(text[:40]))
    return int(text)
