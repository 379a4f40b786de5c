"""A bundle: the folder with everything a device needs, opened with every hash and shape checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout
from flashhead_edge.errors import BundleError, OptionError
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.manifest import FileRecord, GraphRecord, Manifest, TensorRecord
from flashhead_edge.row_table import RowTable


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: The folder.
        manifest: What ``flashhead.json`` says.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Bundle:
        """Open a bundle folder.

        Args:
            path: The folder.
            verify: Whether to compare the SHA-256 of every file (sizes always are); about a second a gigabyte.

        Returns:
            The bundle.

        Raises:
            BundleError: The folder is no bundle, of another schema, incomplete, or a byte has changed.
        """
        folder = Path(path)
        try:
            text = (folder / layout.MANIFEST).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            state = "is not a folder" if not folder.is_dir() else f"has no readable {layout.MANIFEST}"
            raise BundleError(
                f"{path} is not a bundle.",
                found=f"it {state}",
                expected=f"a folder with {layout.MANIFEST}",
                hint="make one with: flashhead-edge export MODEL -o BUNDLE",
            ) from error
        manifest = Manifest.from_json(text)
        for name, record in manifest.files.items():
            _check_file(folder, name, record, verify=verify)
        for graph in manifest.graphs.values():
            _check_listed(manifest, graph.file)
        for name, table in manifest.tables.items():
            _check_table(manifest, name, table)
        return cls(folder, manifest)

    def graph(self, name: str) -> GraphRecord:
        """A graph of the bundle by name: "head", "body", "decode" or "dense".

        Raises:
            BundleError: The bundle was exported without it.
        """
        try:
            return self.manifest.graphs[name]
        except KeyError:
            raise BundleError(
                f"The bundle has no {name} graph.",
                found=", ".join(sorted(self.manifest.graphs)),
                expected=name,
                hint="export the model again without --no-body",
            ) from None

    def file(self, name: str) -> Path:
        """Path of a listed file.

        Raises:
            BundleError: The bundle does not hold it.
        """
        _check_listed(self.manifest, name)
        return self.path / name

    def table(self, name: str) -> npt.NDArray[np.generic]:
        """Map a tensor of ``manifest.tables`` read-only, without a copy.

        Raises:
            BundleError: The bundle does not name it.
        """
        record = self.manifest.tables.get(name)
        if record is None:
            raise BundleError(f"The bundle has no table {name!r}.", found=", ".join(self.manifest.tables))
        return np.memmap(
            self.path / record.file,
            dtype=np.dtype(record.dtype),
            mode="r",
            offset=record.offset,
            shape=tuple(record.shape),
        )

    def rows(self) -> RowTable:
        """Map the vocabulary rows of the head.

        Raises:
            BundleError: The bundle does not name what its rows need, or their types or shapes do not go together.
        """
        tables: list[Any] = [self.table(name) for name in layout.row_tables(self.manifest.tables)]
        try:
            return RowTable(*tables)
        except OptionError as error:
            raise BundleError(
                f"{layout.MANIFEST} does not describe the rows of a head.", found=error.found, expected=error.expected
            ) from error

    def index(self) -> HeadIndex:
        """Read the index.

        Raises:
            BundleError: Its shapes do not fit the manifest.
        """
        from flashhead_edge.index.storage import load_index

        index = load_index(self.file(layout.INDEX))
        facts = self.manifest.index
        found = (index.vocab_size, index.hidden_size, index.num_clusters, index.cluster_size)
        expected = (self.manifest.vocab_size, self.manifest.hidden_size, facts.num_clusters, facts.cluster_size)
        if found != expected:
            raise BundleError(
                f"{layout.INDEX} does not fit the manifest (V, H, K, cluster size).", found=found, expected=expected
            )
        return index


def hash_file(path: Path) -> FileRecord:
    """Size and SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        return FileRecord(file.tell(), digest.hexdigest())


def _check_file(folder: Path, name: str, record: FileRecord, *, verify: bool) -> None:
    path = folder / name
    inside = Path(name)
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, links in a circle
        raise BundleError(
            f"{layout.MANIFEST} names a file that cannot be.", found=ascii(name[:80]), hint="do not use this bundle"
        ) from error
    if inside.is_absolute() or ".." in inside.parts or not is_inside:
        raise BundleError(
            f"{layout.MANIFEST} names a file outside the bundle.", found=name, hint="do not use this bundle"
        )
    if not is_file:
        raise BundleError(f"{name} is missing from the bundle.", hint="copy the bundle again, all files of it")
    size = path.stat().st_size
    if size != record.bytes:
        raise BundleError(
            f"{name} has the wrong size.",
            found=f"{size} bytes",
            expected=f"{record.bytes} bytes",
            hint="copy the bundle again; it was cut off or changed",
        )
    if verify and (found := hash_file(path)) != record:
        raise BundleError(
            f"{name} has changed since the bundle was written.",
            found=f"sha256 {found.sha256[:16]}...",
            expected=f"sha256 {record.sha256[:16]}...",
            hint="copy or export the bundle again",
        )


def _check_listed(manifest: Manifest, name: str) -> None:
    if name not in manifest.files:
        raise BundleError(f"The bundle does not hold {name}.", found=", ".join(sorted(manifest.files)))


def _check_table(manifest: Manifest, name: str, table: TensorRecord) -> None:
    _check_listed(manifest, table.file)
    known = table.dtype in ("float16", "float32", "int32", "int8", "uint8") and all(size > 0 for size in table.shape)
    if not known or table.length != prod(table.shape) * np.dtype(table.dtype).itemsize:
        raise BundleError(f"{layout.MANIFEST}: the bytes of {name} do not fill its shape.", found=table)
    if table.offset < 0 or table.offset + table.length > manifest.files[table.file].bytes:
        raise BundleError(f"{layout.MANIFEST}: {name} lies outside {table.file}.", found=table)
