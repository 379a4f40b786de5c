"""Weights that live beside their graph: where a tensor lies in a ``.data`` file, and the writer of such files.

Graphs of one bundle share ``.data`` files, so weights are written once and every graph only refers to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import ExportError
from flashhead_edge.manifest import TensorRecord

if TYPE_CHECKING:
    import onnx
    from typing_extensions import Self

#: Tensors start on a page, so that runtimes can map them into memory without copying.
ALIGNMENT_BYTES = 4096

#: ONNX types that numpy lacks, in bits per element; their arrays hold packed or raw bytes.
_BITS_WITHOUT_NUMPY = {"int4": 4, "uint4": 4, "bfloat16": 16, "float8e4m3fn": 8}


@dataclass(frozen=True)
class TensorRef:
    """A tensor in a ``.data`` file.

    Attributes:
        name: Name of the initializer in every graph that uses it.
        dtype: Lower-case name of the ONNX element type: "float16", "int32", "int4", ...
        shape: Logical shape (elements, not packed bytes).
        location: File name, relative to the folder of the graph.
        offset: Bytes before the first element.
        length: Bytes of the tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    location: str
    offset: int
    length: int

    @property
    def onnx_type(self) -> int:
        """The member of ``TensorProto.DataType``."""
        import onnx

        names = {"float32": "FLOAT", "float64": "DOUBLE"}
        return int(onnx.TensorProto.DataType.Value(names.get(self.dtype, self.dtype.upper())))

    def renamed(self, name: str) -> TensorRef:
        """The same bytes under another name."""
        return replace(self, name=name)

    def record(self) -> TensorRecord:
        """What the manifest says of it."""
        return TensorRecord(self.location, self.dtype, list(self.shape), self.offset, self.length)

    def to_proto(self) -> onnx.TensorProto:
        """An initializer whose data stays in the file."""
        import onnx

        proto = onnx.TensorProto(
            name=self.name, data_type=self.onnx_type, dims=self.shape, data_location=onnx.TensorProto.EXTERNAL
        )
        for key, value in (("location", self.location), ("offset", self.offset), ("length", self.length)):
            proto.external_data.add(key=key, value=str(value))
        return proto

    def read(self, folder: Path) -> npt.NDArray[np.generic]:
        """Map the tensor read-only, for checks; types that numpy lacks come back as flat uint8.

        Args:
            folder: Folder of the graph, to which the location is relative.
        """
        raw = self.dtype in _BITS_WITHOUT_NUMPY
        dtype = np.dtype(np.uint8 if raw else self.dtype)
        shape = (self.length,) if raw else self.shape
        return np.memmap(folder / self.location, dtype=dtype, mode="r", offset=self.offset, shape=shape)


class DataFile:
    """Writes tensors one after another into a new ``.data`` file; a failure inside ``with`` removes it.

    Args:
        path: The file to create; its name becomes the location that graphs refer to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._refs: dict[str, TensorRef] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is not None:
            self.path.unlink(missing_ok=True)

    @property
    def refs(self) -> tuple[TensorRef, ...]:
        """Everything written so far, in order."""
        return tuple(self._refs.values())

    def append(
        self,
        name: str,
        array: npt.NDArray[np.generic],
        *,
        dtype: str | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> TensorRef:
        """Write one tensor.

        Args:
            name: Initializer name, unique in the file.
            array: The values, any shape; for types that numpy lacks their bytes (two int4 a byte, low half first).
            dtype: ONNX type name where it is not the array's own, e.g. "int4".
            shape: Logical shape where it is not the array's own, e.g. of packed int4.

        Raises:
            ExportError: The name is taken, or bytes and shape do not agree.
        """
        return self.append_chunks(
            name, [array], dtype=dtype or array.dtype.name, shape=array.shape if shape is None else shape
        )

    def append_chunks(
        self, name: str, chunks: Iterable[npt.NDArray[np.generic]], *, dtype: str, shape: tuple[int, ...]
    ) -> TensorRef:
        """Write one tensor piece by piece along its first axis, so that it never has to be whole in memory.

        Args:
            name: Initializer name, unique in the file.
            chunks: Consecutive pieces; those of numpy types are written as they are, so they must have ``dtype``.
            dtype: ONNX type name.
            shape: Logical shape of the whole.

        Raises:
            ExportError: The name is taken, a piece has another type, or bytes and shape do not agree.
        """
        if name in self._refs:
            raise ExportError(f"{self.path.name} already holds a tensor named {name!r}.")
        bits = _BITS_WITHOUT_NUMPY.get(dtype)
        offset = self._align()
        for chunk in chunks:
            if bits is None and chunk.dtype.name != dtype:
                raise ExportError(f"A piece of {name!r} has the wrong type.", found=chunk.dtype.name, expected=dtype)
            little = np.ascontiguousarray(chunk).astype(chunk.dtype.newbyteorder("<"), copy=False)
            self._file.write(little.reshape(-1).view(np.uint8).data)
        length = self._file.tell() - offset
        expected = (prod(shape) * (bits or np.dtype(dtype).itemsize * 8) + 7) // 8
        if length != expected:
            raise ExportError(f"The bytes of {name!r} do not fill its shape {shape}.", found=length, expected=expected)
        self._refs[name] = TensorRef(name, dtype, tuple(map(int, shape)), self.path.name, offset, length)
        return self._refs[name]

    def _align(self) -> int:
        """Fill up to the next page and return its offset in bytes."""
        position = self._file.tell()
        gap = -position % ALIGNMENT_BYTES
        self._file.write(bytes(gap))
        return position + gap
