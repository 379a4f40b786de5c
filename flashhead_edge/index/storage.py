"""``index.safetensors``: an index on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import BundleError
from flashhead_edge.index.head_index import HeadIndex

_TENSORS = {
    "token_order": (np.int32, 2),
    "centroids": (np.float32, 2),
    "centroid_bias": (np.float32, 1),
    "selection_offset": (np.float32, 1),
    "cluster_variance": (np.float32, 1),
}
_PROJECTION = "projection"
#: Types of tensors by their names in the format.
_DTYPES = {"I32": np.int32, "F32": np.float32}


def save_index(index: HeadIndex, path: Path) -> None:
    """Write an index.

    Args:
        index: The index.
        path: File to write; the vocabulary size goes into its metadata.
    """
    from safetensors.numpy import save_file

    tensors = {name: getattr(index, name) for name in _TENSORS}
    if index.projection is not None:
        tensors[_PROJECTION] = index.projection
    # One entry only: safetensors writes several in no fixed order, and equal indices should be equal files.
    metadata = {"vocab_size": str(index.vocab_size)}
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path, metadata=metadata)


def load_index(path: Path) -> HeadIndex:
    """Map an index and check that it is one; centroids are read from the disk when they are used.

    Raises:
        BundleError: The file is damaged, or tokens are missing, doubled or out of range.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:  # which checks the file
            metadata = file.metadata() or {}
        tensors = _mapped_tensors(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path.name} cannot be read.", found=str(error), hint="export the model again") from error
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


def _mapped_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a file in the format of safetensors: the length of a JSON header, the header, the bytes."""
    data = np.memmap(path, np.uint8, "c")  # changes stay in memory: torch takes no read-only arrays
    begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:begin].tobytes())
    tensors = {}
    for name, record in header.items():
        dtype = _DTYPES.get(record.get("dtype", ""))
        if dtype is not None:
            first, last = (begin + offset for offset in record["data_offsets"])
            tensors[name] = np.asarray(data[first:last].view(dtype).reshape(record["shape"]))
    return tensors


def _vocab_size(path: Path, metadata: dict[str, str]) -> int:
    """V, from the file's metadata."""
    text = metadata.get("vocab_size", "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BundleError(f"{path.name} does not say its vocabulary size.", found=ascii(text[:40]))
    return int(text)
