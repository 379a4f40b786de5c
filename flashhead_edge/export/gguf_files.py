"""GGUF files: single tensors, de-quantized from the mapped file by the ``gguf`` package."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionalDependencyError, SourceError, WeightError
from flashhead_edge.export.gguf_header import GgufHeader, GgufTensor

#: Rows de-quantized at once; bounds the memory beside the result.
_CHUNK_ROWS = 4096


class GgufFile:
    """A GGUF file, mapped.

    Args:
        path: The file.

    Attributes:
        header: Metadata and places of the tensors.

    Raises:
        SourceError: The file is no GGUF file, is truncated, or is one part of several.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        sizes = {int(kind): size for kind, size in import_gguf().GGML_QUANT_SIZES.items()}
        try:
            with path.open("rb") as stream:
                self._content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # mmap refuses empty files with ValueError
            raise SourceError(f"{path.name} cannot be read.", found=error, expected="a GGUF file") from error
        self.header = GgufHeader(self._content, path.name, sizes)
        parts = int(self.header.metadata.get("split.count", 1))
        if parts > 1:
            raise SourceError(
                f"{path.name} is one part of a model.",
                found=f"split.count {parts}",
                expected="one file that holds the whole model",
                hint="join the parts: llama-gguf-split --merge FIRST_PART.gguf WHOLE.gguf",
            )

    @property
    def architecture(self) -> str:
        """``general.architecture``, such as ``llama``."""
        return str(self.header.metadata.get("general.architecture", ""))

    @property
    def names(self) -> Iterable[str]:
        """Names of all tensors."""
        return self.header.tensors.keys()

    def get(self, key: str) -> Any:
        """The scalar or string at ``key`` of this architecture's metadata, or None."""
        return self.header.metadata.get(f"{self.architecture}.{key}")

    def first_of(self, candidates: Iterable[str]) -> str | None:
        """The first of ``candidates`` that is a tensor here, or None."""
        return next((name for name in candidates if name in self.header.tensors), None)

    def near(self, name: str) -> str:
        """Names of the tensors outside the layers, for messages."""
        return ", ".join(other for other in self.names if not other.startswith("blk.")) or f"nothing like {name}"

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, slowest axis first."""
        return self.header.tensors[name].shape

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """De-quantize a tensor.

        Args:
            name: One of :attr:`names`.

        Returns:
            The numbers, float32, in memory of their own.

        Raises:
            WeightError: The ``gguf`` package cannot de-quantize the type.
        """
        gguf = import_gguf()
        tensor = self.header.tensors[name]
        try:
            kind = gguf.GGMLQuantizationType(tensor.kind)
            values = np.empty(tensor.shape, dtype=np.float32)
            table = values.reshape(-1, tensor.shape[-1])
            raw = self._raw(tensor).reshape(len(table), -1)
            with np.errstate(over="ignore", invalid="ignore"):  # damaged scales; what comes of them is checked later
                for start in range(0, len(table), _CHUNK_ROWS):
                    rows = slice(start, start + _CHUNK_ROWS)
                    table[rows] = gguf.quants.dequantize(raw[rows], kind)
        except (NotImplementedError, ValueError) as error:
            raise WeightError(
                f"The tensor {name} has a type that cannot be de-quantized.",
                found=f"GGML type {tensor.kind} in {self.path.name} ({error})",
                expected="a type that the gguf package de-quantizes, such as F16, Q8_0, Q6_K or Q4_K",
                hint="update the gguf package, or convert the model again with another type",
            ) from error
        return values

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same bytes."""
        left, right = self.header.tensors[one], self.header.tensors[other]
        if (left.shape, left.kind) != (right.shape, right.kind):
            return False
        return bool(np.array_equal(self._raw(left), self._raw(right)))

    def header_bytes(self) -> bytes:
        """Everything before the tensors."""
        return self._content[: self.header.size]

    def _raw(self, tensor: GgufTensor) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self._content, dtype=np.uint8, count=tensor.size, offset=tensor.offset)


def import_gguf() -> Any:
    """The ``gguf`` package.

    Raises:
        OptionalDependencyError: It is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise OptionalDependencyError("gguf", "export", "Reading a GGUF file") from error
    return gguf
