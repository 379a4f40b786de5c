"""``index.safetensors``: an index on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flashhead_edge.errors import BundleError
from flashhead_edge.index.head_index import HeadIndex

_TENSORS = {
    "token_order": (np.int32, 2),
    "centroids": (np.float32, 2),
    "centroid_bias": (np.float32, 1),
    "selection_offset": (np.float32, 1),
    "cluster_variance": (np.float32, 1),
}


def save_index(index: HeadIndex, path: Path) -> None:
    """Write an index.

    Args:
        index: The index.
        path: File to write; the vocabulary size goes into its metadata.
    """
    from safetensors.numpy import save_file

    tensors = {name: getattr(index, name) for name in _TENSORS}
    # One entry only: safetensors writes several in no fixed order, and equal indices should be equal files.
    metadata = {"vocab_size": str(index.vocab_size)}
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path, metadata=metadata)


def load_index(path: Path) -> HeadIndex:
    """Read an index and check that it is one.

    Raises:
        BundleError: The file is damaged, or tokens are missing, doubled or out of range.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path.name} cannot be read.", found=str(error), hint="export the model again") from error
    for name, (dtype, ndim) in _TENSORS.items():
        array = tensors.get(name)
        if array is None or array.dtype != dtype or array.ndim != ndim:
            raise BundleError(
                f"{path.name} holds no index.",
                found="no such tensor" if array is None else f"{array.dtype} of shape {array.shape}",
                expected=f"{name} as {np.dtype(dtype).name} with {ndim} dimensions",
            )
    index = HeadIndex(**{name: tensors[name] for name in _TENSORS}, vocab_size=_vocab_size(path, metadata))
    ids = index.token_order[index.token_order >= 0]
    by_cluster = (index.centroid_bias, index.selection_offset, index.cluster_variance)
    if index.num_always_clusters < 0 or any(array.shape != (index.num_clusters,) for array in by_cluster):
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
