"""Engines that were built, kept in a folder beside a record each; found by key, checked before use.

A name holds the key, so a new engine never overwrites one that somebody reads. An engine is moved into place before its
record: one without a record does not exist for readers.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from flashhead_edge._version import __version__
from flashhead_edge.bundle import hash_file
from flashhead_edge.errors import EngineError
from flashhead_edge.runtimes.tensorrt.engine_key import EngineKey

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class EngineRecord:
    """What is known of an engine; its JSON file.

    Attributes:
        key: What it depends on.
        platform: Platform that it was built for.
        bytes: Size of its file.
        sha256: Of its file.
        seconds: How long the build took.
        scratch_bytes: Memory beside weights, inputs and outputs that a step needs; None where unknown.
        graph_nodes: Nodes of the graph; None where unknown.
        engine_layers: Layers of the engine; None where unknown.
        built_on: Of a Jetson that built it: L4T release, JetPack and power mode, which are no part of the key.
        created_by: Version of this package.
    """

    key: EngineKey
    platform: str
    bytes: int
    sha256: str
    seconds: float
    scratch_bytes: int | None
    graph_nodes: int | None
    engine_layers: int | None
    built_on: Mapping[str, str] = field(default_factory=dict)
    created_by: str = f"flashhead-edge {__version__}"

    @property
    def layers_fused(self) -> int | None:
        """Nodes of the graph that are no layer of their own in the engine."""
        if self.graph_nodes is None or self.engine_layers is None:
            return None
        return self.graph_nodes - self.engine_layers

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps({"digest": self.key.digest, **dataclasses.asdict(self)}, indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> EngineRecord:
        """Read a record.

        Raises:
            ValueError: It is damaged, or of another version of this package.
            TypeError: The same.
            KeyError: The same.
        """
        fields = json.loads(text)
        digest, key = fields.pop("digest"), fields.pop("key")
        record = EngineRecord(key=EngineKey(**{**key, "batch": tuple(key["batch"])}), **fields)
        if record.key.digest != digest:
            raise ValueError("the key is not that of the fields")
        return record


class EngineCache:
    """A folder of engines.

    Args:
        folder: Where they lie; made when the first one is built.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: EngineKey) -> Path:
        """File of an engine."""
        return self.folder / f"{key.place}-{key.digest}.engine"

    def timing_cache(self, key: EngineKey) -> Path | None:
        """File of measured times of kernels: for a GPU and a version, whatever the graph; None where none are measured.

        In TensorRT for RTX all operations on such a file do nothing since 1.2.
        """
        if key.backend == "tensorrt-rtx":
            return None
        gpu = key.place.partition(key.backend)[2]
        return self.folder / f"timing-{key.backend}-{key.tensorrt_version}{gpu}.cache"

    def records(self) -> Iterator[EngineRecord]:
        """Records of all engines that can be read, in the order of their files' names."""
        for path in sorted(self.folder.glob("*.json")):
            try:
                yield EngineRecord.from_json(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, TypeError, KeyError):
                continue  # of another version, or damaged: built again

    def find(self, key: EngineKey) -> EngineRecord | None:
        """The record of an engine that is there whole; its bytes are compared.

        Args:
            key: The key.
        """
        record = next((record for record in self.records() if record.key == key), None)
        return record if record is not None and self.damage(record) is None else None

    def damage(self, record: EngineRecord) -> str | None:
        """What is wrong with an engine's file; None for nothing.

        Args:
            record: Its record.
        """
        path = self.path(record.key)
        if not path.is_file():
            return "its file is missing"
        if path.stat().st_size != record.bytes:
            return f"its file has {path.stat().st_size} bytes, not {record.bytes}"
        return None if hash_file(path).sha256 == record.sha256 else "its bytes have changed since it was built"

    def why_build(self, key: EngineKey) -> str:
        """Why an engine that :meth:`find` does not find has to be built, in one line.

        Args:
            key: The key.
        """
        older = [record for record in self.records() if record.key.place == key.place]
        for record in older:
            if record.key == key:
                return f"the engine that is there cannot be used: {self.damage(record)}"
        if not older:
            return "there is no engine yet"
        return f"the engine that is there is stale: {'; '.join(key.changes_since(older[-1].key))}"

    def add(self, built: Path, record: EngineRecord) -> Path:
        """Move an engine into place, then write its record and remove those of the same place.

        Args:
            built: The engine's file, in the same file system.
            record: Its record.

        Returns:
            The engine's new path.
        """
        target = self.path(record.key)
        built.replace(target)
        partial = target.with_suffix(".json.partial")
        partial.write_text(record.to_json(), encoding="utf-8")
        partial.replace(target.with_suffix(".json"))
        for other in self.folder.glob(f"{record.key.place}-*"):
            same_place = len(other.stem) == len(target.stem)
            if same_place and other.stem != target.stem and other.suffix in (".engine", ".json"):
                other.unlink(missing_ok=True)
        return target

    @contextmanager
    def building(self, key: EngineKey, wait_seconds: float, waiting: Callable[[], None]) -> Iterator[Path]:
        """Hold the right to build engines of a place, which one process has at a time; it ends with the process.

        Args:
            key: Key of the engine.
            wait_seconds: How long to wait for another process.
            waiting: Called once if one has to wait.

        Yields:
            An empty folder to build in, which is removed at the end.

        Raises:
            EngineError: Another process still builds after that time, or nothing can be written here.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / f".{key.place}.lock").open("a+")
        except OSError as error:
            raise EngineError(
                f"Engines cannot be written to {self.folder}.",
                found=error.strerror or error,
                hint="name another folder with --cache-dir",
            ) from error
        with lock:
            _lock(lock, wait_seconds, waiting)
            scratch = self.folder / f".{key.place}.partial"
            shutil.rmtree(scratch, ignore_errors=True)  # of a build that was killed: we hold the lock
            try:
                scratch.mkdir()
                yield scratch
            finally:
                shutil.rmtree(scratch, ignore_errors=True)


def _lock(file: IO[str], wait_seconds: float, waiting: Callable[[], None]) -> None:
    """Wait for a lock, which the system frees when its owner ends, however it ends; the file names the owner."""
    end = time.monotonic() + wait_seconds
    told = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not told:
                waiting()
                told = True
        if time.monotonic() > end:
            file.seek(0)
            raise EngineError(
                "Another process is still building this engine.",
                found=f"process {file.read().strip() or 'unknown'}, not ready after {wait_seconds:.0f} seconds",
                hint="wait until it is ready and try again, or end it",
            )
        time.sleep(_POLL_SECONDS)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
