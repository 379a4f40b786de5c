"""What an engine depends on: two engines of one key are interchangeable, any other change means a new build."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from flashhead_edge.bundle import Bundle

#: Changes when this package builds the same request differently.
BUILD_VERSION = 1
_DIGITS = 16


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on.

    Attributes:
        graph: Name of the graph in the bundle.
        graph_sha256: Of the graph's file.
        weights_sha256: Of the files with its weights, all of them together.
        backend: "tensorrt" or "tensorrt-rtx".
        tensorrt_version: All of it, such as "10.3.0".
        compute_capability: Of the GPU, such as "8.7".
        gpu: Name of the GPU whose kernels were timed; None where the engine was built ahead of time.
        cuda: Newest CUDA version of the driver that was there; None where the engine was built ahead of time.
        batch: Least, tuned and greatest batch of the profile.
        workspace_bytes: Limit of the workspace; None for none.
        optimization_level: Of the builder.
        build_version: Of the way in which this package builds.
    """

    graph: str
    graph_sha256: str
    weights_sha256: str
    backend: str
    tensorrt_version: str
    compute_capability: str
    gpu: str | None
    cuda: str | None
    batch: tuple[int, int, int]
    workspace_bytes: int | None
    optimization_level: int
    build_version: int = BUILD_VERSION

    @property
    def digest(self) -> str:
        """The key as text, for names of files."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

    @property
    def place(self) -> str:
        """What engines replace each other by: the graph, the package and the GPU."""
        where = f"sm{self.compute_capability.replace('.', '')}"
        gpu = "" if self.gpu is None else "-" + "".join(c if c.isalnum() else "-" for c in self.gpu.lower())
        return f"{self.graph.removesuffix('_tensorrt')}-{self.backend}-{where}{gpu}"

    def changes_since(self, older: EngineKey) -> list[str]:
        """What changed, in words, most telling first.

        Args:
            older: The key of an engine of the same place.
        """
        changes = []
        for field in dataclasses.fields(self):
            before, now = getattr(older, field.name), getattr(self, field.name)
            if before != now:
                what = field.name.replace("_", " ")
                values = "" if field.name.endswith("sha256") else f" (from {_words(before)} to {_words(now)})"
                changes.append(f"{what.replace(' sha256', '')} changed{values}")
        return changes


def hash_of_graph(bundle: Bundle, graph: str) -> tuple[str, str, int]:
    """Hashes of a graph and of its weights, from the manifest, and how large the weights' files are.

    Args:
        bundle: The bundle.
        graph: Name of the graph.

    Returns:
        SHA-256 of the graph, of all files of weights that it names, and their bytes.

    Raises:
        BundleError: The bundle has no such graph.
    """
    files = bundle.manifest.files
    name = bundle.graph(graph).file
    text = bundle.file(name).read_bytes()
    # A string in a graph stands after its length, so that no name is taken for the beginning of another.
    data = sorted(other for other in files if bytes([len(other) & 127]) + other.encode() in text)
    together = hashlib.sha256("".join(f"{other} {files[other].sha256}\n" for other in data).encode()).hexdigest()
    return files[name].sha256, together, sum(files[other].bytes for other in data)


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)
