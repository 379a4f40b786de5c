"""Tensors in files of the format of safetensors, mapped into memory: what is not looked at is not read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import BundleError
from flashhead_edge.files import write_bytes

#: Types of tensors by their names in the format.
_DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "I32": np.int32, "F32": np.float32}


def write_tensors(
    path: Path, tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors, readable for whom the process's other files are: safetensors' own writer leaves them to the owner.

    Args:
        path: The file.
        tensors: Any arrays, by name.
        metadata: Texts beside them. Of several, safetensors does not keep the order, and equal content should be equal
            files.

    Raises:
        ExportError: The disk is full or not writable.
    """
    from safetensors.numpy import save

    whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_bytes(path, save(whole, metadata=None if metadata is None else dict(metadata)))


def map_tensors(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Map the tensors of a file; changes to them stay in memory, as torch takes no read-only arrays.

    Args:
        path: The file.

    Returns:
        The tensors of types that bundles have, by name; the file's metadata.

    Raises:
        BundleError: The file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:  # which checks the file
            metadata = file.metadata() or {}
        data = np.memmap(path, np.uint8, "c")
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path.name} cannot be read.", found=str(error), hint="export the model again") from error
    begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
    tensors = {}
    for name, record in json.loads(data[8:begin].tobytes()).items():
        dtype = _DTYPES.get(record.get("dtype", ""))
        if dtype is not None:
            first, last = (begin + offset for offset in record["data_offsets"])
            tensors[name] = np.asarray(data[first:last].view(dtype).reshape(record["shape"]))
    return tensors, metadata
