"""The safetensors files of a model folder: one or many, opened only where something is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionalDependencyError, SourceError, WeightError
from flashhead_edge.export.model_config import read_json

INDEX_SUFFIX = ".safetensors.index.json"
_FLOATS = {"F64", "F32", "F16", "BF16"}
#: Rows converted at once; bounds the memory beside the result.
_CHUNK_ROWS = 8192


class SafetensorsFiles:
    """Tensors by name, across the files of a folder.

    Args:
        folder: Holds ``*.safetensors``, and ``*.safetensors.index.json`` where there are several.

    Raises:
        SourceError: There are no such files, one that the index names is missing, or one is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = weight_files(folder)
        self._file_of: dict[str, Path] = {}
        for file in self.files:
            with _opened(file, "np") as handle:
                self._file_of.update(dict.fromkeys(handle.keys(), file))

    @property
    def names(self) -> Iterable[str]:
        """Names of all tensors."""
        return self._file_of.keys()

    def first_of(self, candidates: Iterable[str]) -> str | None:
        """The first of ``candidates`` that is here, or None."""
        return next((name for name in candidates if name in self._file_of), None)

    def near(self, name: str) -> str:
        """Names like ``name``, for messages."""
        last_words = tuple(name.split(".")[-2:])
        close = [other for other in self.names if tuple(other.split(".")[-2:]) == last_words]
        close += difflib.get_close_matches(name, list(self.names), n=4, cutoff=0.4)
        return ", ".join(dict.fromkeys(close[:6])) or ", ".join(sorted(self.names)[:6]) or "no tensors at all"

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, read from its file's header."""
        with _opened(self._file_of[name], "np") as handle:
            return tuple(handle.get_slice(name).get_shape())

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read a tensor.

        Args:
            name: One of :attr:`names`; [V, H] or [V] of any floating type.

        Returns:
            The numbers, float32, in memory of their own; apart from them a few thousand rows are in memory at a time.

        Raises:
            WeightError: The tensor is not of a floating type, as in a quantized checkpoint.
        """
        torch = self._torch
        with _opened(self._file_of[name], "pt") as handle:
            view = handle.get_slice(name)
            if view.get_dtype() not in _FLOATS:
                raise WeightError(
                    f"The tensor {name} is quantized.",
                    found=f"type {view.get_dtype()} in {self._file_of[name].name}",
                    expected=f"one of {', '.join(sorted(_FLOATS))}",
                    hint="export from the unquantized checkpoint, or from a .gguf file",
                )
            values = np.empty(view.get_shape(), dtype=np.float32)
            for start in range(0, len(values), _CHUNK_ROWS):
                rows = slice(start, start + _CHUNK_ROWS)
                torch.from_numpy(values[rows]).copy_(view[rows])
        return values

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same numbers; stops at the first rows that differ."""
        torch = self._torch
        if self.shape(one) != self.shape(other):
            return False
        with _opened(self._file_of[one], "pt") as first, _opened(self._file_of[other], "pt") as second:
            left, right = first.get_slice(one), second.get_slice(other)
            starts = range(0, left.get_shape()[0], _CHUNK_ROWS)
            return all(torch.equal(left[at : at + _CHUNK_ROWS], right[at : at + _CHUNK_ROWS]) for at in starts)

    @cached_property
    def _torch(self) -> Any:
        try:
            import torch
        except ImportError as error:
            raise OptionalDependencyError("torch", "export", "Reading safetensors in half precision") from error
        return torch


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a model.

    Args:
        folder: A model folder.

    Returns:
        Their paths, sorted: those that the index names, or ``model.safetensors``, or all there are.

    Raises:
        SourceError: There are none, or one that the index names is missing.
    """
    indices = sorted(folder.glob("*" + INDEX_SUFFIX))
    if indices:
        # Several indices are variants ("model.fp16..."); the plain one is the model.
        index = next((file for file in indices if file.name == "model" + INDEX_SUFFIX), indices[0])
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise SourceError(f"{index.name} names no files.", expected="a weight_map of tensor and file names")
        names = sorted(set(map(str, weight_map.values())))
        if escaping := [name for name in names if Path(name).name != name]:
            raise SourceError(f"{index.name} points outside the model folder.", found=escaping[0])
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise SourceError(
                "The model folder lacks files that its index names.",
                found=f"{len(missing)} of {len(names)} missing: {', '.join(missing[:4])}",
                hint="finish the download",
            )
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise _without_weights(folder)
    return files


def _without_weights(folder: Path) -> SourceError:
    pickled = sorted(file.name for file in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")))
    if pickled:
        return SourceError(
            "The model's weights are in a format that can run code when it is read.",
            found=", ".join(pickled[:4]),
            expected="*.safetensors",
            hint="convert them once, where you trust them: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)",
        )
    return SourceError(
        "The model folder has no weights.",
        found="no *.safetensors files",
        expected="model.safetensors, or model-00001-of-*.safetensors with model.safetensors.index.json",
        hint="download the model with its weights (git clones need git lfs pull)",
    )


def _opened(file: Path, framework: str) -> Any:
    """Open a file; opening checks that the header is sound and every tensor lies inside the file."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework=framework)
    except (SafetensorError, OSError) as error:
        raise SourceError(
            f"{file.name} is damaged or truncated.",
            found=f"{error}; the file has {file.stat().st_size} bytes",
            expected="a complete safetensors file",
            hint="download the file again",
        ) from error
