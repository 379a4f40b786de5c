"""A profile: what a decode step costs, stage by stage, measured on a device or predicted for one.

Both are the same record and the same JSON, told apart by ``measured``.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flashhead_edge.errors import ProfileError
from flashhead_edge.typed_json import JsonDocument

SCHEMA_VERSION = 1

BODY = "body"
CENTROIDS = "centroids"
TOP_K = "top-k"
GATHER_DOT = "gather + dot"
DENSE_HEAD = "dense head"
SAMPLING = "sampling"
HOST = "host"
#: Stages in the order of a step. A head has the two-stage ones or the dense one.
STAGES = (BODY, CENTROIDS, TOP_K, GATHER_DOT, DENSE_HEAD, SAMPLING, HOST)
HEAD_STAGES = (CENTROIDS, TOP_K, GATHER_DOT, DENSE_HEAD)


@dataclass(frozen=True)
class Stage:
    """A part of a step.

    Attributes:
        name: One of :data:`STAGES`.
        ms: Time in a step, milliseconds: median of the measured steps, or predicted.
        bytes: What the stage must read from memory in a step: weights, and the cache of the positions. None where that
            means nothing.
        operations: Multiplications and additions in a step; None where they do not matter.
        bound: What limits it: by roofline, whichever of bytes / bandwidth and operations / peak takes longer; None
            where neither applies.
        ms_p10: 10th percentile over steps; None for a prediction, or where only a mean was seen.
        ms_p90: 90th percentile.
        source: How the time was seen, such as "onnxruntime profiler"; None for a prediction.
    """

    name: str
    ms: float
    bytes: int | None = None
    operations: int | None = None
    bound: Literal["bandwidth", "compute"] | None = None
    ms_p10: float | None = None
    ms_p90: float | None = None
    source: str | None = None

    @property
    def bandwidth_gb_s(self) -> float | None:
        """Achieved bandwidth in 10^9 bytes a second; above the memory's where caches serve."""
        return self.bytes / self.ms / 1e6 if self.bytes and self.ms > 0 else None


@dataclass(frozen=True)
class Model:
    """The model and head whose step it is.

    Attributes:
        name: The model's name.
        head: "two-stage" or "dense".
        vocab_size: V.
        hidden_size: H.
        num_clusters: K; None for a dense head, like the next two.
        cluster_size: C.
        num_probes: P.
        head_precision: How the rows that get exact logits are stored.
        centroid_precision: How centroids are stored.
        body_precision: How the body's weights are stored; None for a head alone.
        agreement: Share of held-out states at which the head takes the dense head's token; None where unknown.
        fingerprint: Of the model that was exported; None where there is none.
    """

    name: str
    head: str
    vocab_size: int
    hidden_size: int
    num_clusters: int | None = None
    cluster_size: int | None = None
    num_probes: int | None = None
    head_precision: str | None = None
    centroid_precision: str | None = None
    body_precision: str | None = None
    agreement: float | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Machine:
    """What must be alike for two profiles to be comparable. What is not known is None.

    Attributes:
        processor: Model of the CPU or GPU that computes.
        cores: Cores that the process may use.
        memory_bytes: Memory of the machine or GPU.
        bandwidth_gb_s: Peak of the memory, or what a stream test reached, in 10^9 bytes a second.
        bandwidth_source: Where that comes from: "catalogue", or the stream test and its threads.
        operations_g_s: Peak of multiplications and additions, or what a matrix product reached, in 10^9 a second.
        operations_source: Where that comes from.
        clock_mhz: Clock of the cores under load.
        governor: Of Linux's frequency scaling.
        power_mode: Of a Jetson.
        isa_features: Of the CPU.
        os: Operating system.
        packages: Versions of what computes.
        native_kernels: Kernels of the native library, where it was used.
    """

    processor: str
    cores: int | None = None
    memory_bytes: int | None = None
    bandwidth_gb_s: float | None = None
    bandwidth_source: str | None = None
    operations_g_s: float | None = None
    operations_source: str | None = None
    clock_mhz: float | None = None
    governor: str | None = None
    power_mode: str | None = None
    isa_features: tuple[str, ...] = ()
    os: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    native_kernels: str | None = None


@dataclass(frozen=True)
class MemorySample:
    """Resident memory at a moment.

    Attributes:
        seconds: Since the profile began.
        rss_bytes: Resident then, mapped files included.
        phase: What went on: "open" or "decode".
    """

    seconds: float
    rss_bytes: int
    phase: str


@dataclass(frozen=True)
class Memory:
    """What the model needs in memory.

    Attributes:
        weights_bytes: Of all weights that are read or mapped.
        cache_bytes: Key-value cache of the positions.
        peak_rss_bytes: Most that was resident; None for a prediction.
        samples: Over time; empty for a prediction.
    """

    weights_bytes: int | None
    cache_bytes: int | None
    peak_rss_bytes: int | None = None
    samples: tuple[MemorySample, ...] = ()


@dataclass(frozen=True)
class Overhead:
    """What profiling itself cost; steps with and without it took turns.

    Attributes:
        plain_ms: Median step without it, milliseconds.
        profiled_ms: Median step with it.
    """

    plain_ms: float
    profiled_ms: float

    @property
    def ratio(self) -> float:
        """How many times as long a profiled step takes."""
        return self.profiled_ms / self.plain_ms


@dataclass(frozen=True)
class HeadPoint:
    """Time of a head alone in one configuration of a series.

    Attributes:
        varied: What the series varies: "probes", "batch", "clusters" (K, with V kept) or "vocabulary" (V, with C kept).
        batch: B.
        vocab_size: V.
        num_clusters: K.
        num_probes: P.
        head_ms: Median, milliseconds.
        agreement: Share of states at which the head takes the dense head's token; None where that means nothing.
    """

    varied: Literal["probes", "batch", "clusters", "vocabulary"]
    batch: int
    vocab_size: int
    num_clusters: int
    num_probes: int
    head_ms: float
    agreement: float | None = None

    @property
    def value(self) -> int:
        """What is varied."""
        names = {"probes": self.num_probes, "batch": self.batch, "clusters": self.num_clusters}
        return names.get(self.varied, self.vocab_size)


@dataclass(frozen=True)
class Profile:
    """What a decode step costs.

    Attributes:
        platform: Name in the catalogue; None where none fits.
        measured: True if measured on that platform, False if predicted for it.
        stages: In the order of a step; their times add up to about ``step_ms``.
        memory: What the model needs.
        energy_j_per_token: None where nothing counts it, and for a prediction without one.
        step_ms: Median of a whole step, unprofiled where measured, milliseconds.
        model: The model and its head.
        machine: Facts of the platform.
        runtime: What executes the model, with its version; None for a prediction.
        batch: B, states a step.
        threads: Threads of the operators; None where that means nothing.
        positions: Tokens in the cache in the middle of the measured steps.
        steps: Steps measured; 0 for a prediction.
        energy_source: What counted the energy, or how it was predicted.
        overhead: What profiling cost; None for a prediction.
        relative_error: By which share a predicted step may be off, from validation; None for a measurement.
        other_load: Cores that other programs kept busy meanwhile; None for a prediction.
        taken_at: When, UTC, as in ISO 8601; None for a prediction.
        head_points: Series of the head alone.
        notes: What must be known to read the figures, in sentences.
        created_by: Program and version.
        schema_version: Of this record.
    """

    platform: str | None
    measured: bool
    stages: tuple[Stage, ...]
    memory: Memory
    energy_j_per_token: float | None
    step_ms: float
    model: Model
    machine: Machine
    created_by: str
    runtime: str | None = None
    batch: int = 1
    threads: int | None = None
    positions: int | None = None
    steps: int = 0
    energy_source: str | None = None
    overhead: Overhead | None = None
    relative_error: float | None = None
    other_load: float | None = None
    taken_at: str | None = None
    head_points: tuple[HeadPoint, ...] = ()
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def tokens_per_second(self) -> float:
        """Of the whole batch."""
        return 1e3 * self.batch / self.step_ms

    @property
    def head_ms(self) -> float:
        """Of the head's stages together, milliseconds."""
        return sum(stage.ms for stage in self.stages if stage.name in HEAD_STAGES)

    @property
    def head_share(self) -> float:
        """Of the head in the time of all stages."""
        return self.head_ms / sum(stage.ms for stage in self.stages)

    def stage(self, name: str) -> Stage | None:
        """The stage of a name; None where the step has none."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """The profile as JSON takes it."""
        data = dataclasses.asdict(self)
        return {"schema_version": data.pop("schema_version"), **data}

    def to_json(self) -> str:
        """The text of a profile's file."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"


def read_profile(path: Path) -> Profile:
    """Read a profile that was written by :meth:`Profile.to_json`.

    Args:
        path: The file.

    Returns:
        The profile.

    Raises:
        ProfileError: It cannot be read, is of another schema version, or does not follow the schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(
            f"The profile {path} cannot be read.",
            found=error.strerror if isinstance(error, OSError) else "bytes that are not UTF-8",
            hint="name a file that `flashhead-edge profile` wrote",
        ) from error
    return JsonDocument(path.name, SCHEMA_VERSION, ProfileError, "profile or predict again").read(Profile, text)
