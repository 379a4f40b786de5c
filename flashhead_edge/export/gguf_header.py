"""The header of a GGUF file: metadata, and where each tensor lies.

The reader of the ``gguf`` package makes an array object of every token in the vocabulary, which takes 11 s and 700 MB
for Gemma 3's; this one steps over the arrays that nobody asks for.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flashhead_edge.errors import SourceError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
#: struct formats of the scalar types, by their number in the file.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_AXES = 8
#: What reading past the end, or nonsense, raises.
_GARBLED = (struct.error, UnicodeDecodeError, OverflowError, IndexError, KeyError, MemoryError)


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies.

    Attributes:
        shape: Shape, slowest axis first.
        kind: Number of its GGML type.
        offset: Its first byte in the file.
        size: Its length in bytes; 0 where the type is unknown.
    """

    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int


class GgufHeader:
    """Header of a GGUF file.

    Args:
        content: The mapped file.
        name: The file's name, for messages.
        block_sizes: Elements and bytes of a block, by the number of the GGML type.

    Attributes:
        metadata: Scalars and strings by key; arrays are read by :meth:`array`.
        tensors: Places of the tensors by name.
        size: Bytes before the padding in front of the tensors.

    Raises:
        SourceError: This is no GGUF file, or it is truncated or garbled.
    """

    def __init__(self, content: mmap.mmap, name: str, block_sizes: Mapping[int, tuple[int, int]]) -> None:
        self._content = content
        self._name = name
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, GgufTensor] = {}
        self._arrays: dict[str, int] = {}
        try:
            entries, tensor_count = self._read_start()
            position = self._read_metadata(24, entries)
            self.size = self._read_tensors(position, tensor_count, block_sizes)
        except _GARBLED as error:
            raise self._damaged(f"the header does not end inside the file or is garbled ({error})") from error
        end = max((tensor.offset + tensor.size for tensor in self.tensors.values()), default=self.size)
        if end > len(content):
            raise self._damaged(f"the tensors end at byte {end}")

    def array_length(self, key: str) -> int:
        """Number of elements of the metadata array ``key``; 0 where it is missing."""
        return int(struct.unpack_from("<IQ", self._content, self._arrays[key])[1]) if key in self._arrays else 0

    def array(self, key: str) -> list[Any]:
        """The metadata array ``key``; empty where it is missing."""
        if key not in self._arrays:
            return []
        try:
            return list(self._value(self._arrays[key], _ARRAY)[0])
        except _GARBLED as error:
            raise self._damaged(f"the array {key} is garbled ({error})") from error

    def _read_start(self) -> tuple[int, int]:
        if self._content[:4] != _MAGIC:
            raise SourceError(
                f"{self._name} is no GGUF file.", found=f"first bytes {self._content[:4]!r}", expected=repr(_MAGIC)
            )
        version, tensors, entries = struct.unpack_from("<IQQ", self._content, 4)
        if version not in _VERSIONS:
            raise SourceError(
                f"{self._name} has a GGUF version that we do not read.",
                found=f"version {version}" if version & 0xFFFF else "a big-endian file",
                expected=f"version {' or '.join(map(str, _VERSIONS))}, little-endian",
                hint="convert the model again with a current llama.cpp",
            )
        return entries, tensors

    def _read_metadata(self, position: int, count: int) -> int:
        for _ in range(count):
            key, position = self._string(position)
            (kind,) = struct.unpack_from("<I", self._content, position)
            position += 4
            if kind == _ARRAY:
                self._arrays[key] = position
                position = self._after_array(position)
            else:
                self.metadata[key], position = self._value(position, kind)
        return position

    def _read_tensors(self, position: int, count: int, block_sizes: Mapping[int, tuple[int, int]]) -> int:
        places = []
        for _ in range(count):
            name, position = self._string(position)
            (axes,) = struct.unpack_from("<I", self._content, position)
            if axes > _MAX_AXES:
                raise struct.error(f"{name!r} has {axes} axes")
            *sizes, kind, offset = struct.unpack_from(f"<{axes}QIQ", self._content, position + 4)
            position += 4 + 8 * axes + 12
            places.append((name, tuple(reversed(sizes)), kind, offset))
        alignment = int(self.metadata.get("general.alignment", 32)) or 32
        start = -(-position // alignment) * alignment
        for name, shape, kind, offset in places:
            elements, size = block_sizes.get(kind, (1, 0))
            self.tensors[name] = GgufTensor(shape, kind, start + offset, math.prod(shape) // elements * size)
        return position

    def _string(self, position: int) -> tuple[str, int]:
        (length,) = struct.unpack_from("<Q", self._content, position)
        end = position + 8 + length
        if end > len(self._content):
            raise struct.error(f"{length} bytes of text at byte {position}")
        return self._content[position + 8 : end].decode("utf-8"), end

    def _value(self, position: int, kind: int) -> tuple[Any, int]:
        if kind == _STRING:
            return self._string(position)
        if kind != _ARRAY:
            form = "<" + _SCALARS[kind]
            return struct.unpack_from(form, self._content, position)[0], position + struct.calcsize(form)
        item, count = struct.unpack_from("<IQ", self._content, position)
        position += 12
        if item in _SCALARS:
            form = f"<{count}{_SCALARS[item]}"
            return list(struct.unpack_from(form, self._content, position)), position + struct.calcsize(form)
        values = []
        for _ in range(count):
            value, position = self._value(position, item)
            values.append(value)
        return values, position

    def _after_array(self, position: int) -> int:
        """First byte after the array at ``position``."""
        item, count = struct.unpack_from("<IQ", self._content, position)
        position += 12
        if item in _SCALARS:
            return int(position + count * struct.calcsize("<" + _SCALARS[item]))
        if item == _STRING:
            length_at, content = struct.Struct("<Q").unpack_from, self._content
            for _ in range(count):
                position += 8 + length_at(content, position)[0]
            return position
        if item != _ARRAY:
            raise KeyError(f"type {item}")
        for _ in range(count):
            position = self._after_array(position)
        return position

    def _damaged(self, why: str) -> SourceError:
        return SourceError(
            f"{self._name} is truncated or damaged.",
            found=f"{len(self._content)} bytes; {why}",
            expected="a complete GGUF file",
            hint="download the file again",
        )
