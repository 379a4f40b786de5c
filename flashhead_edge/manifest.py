"""The manifest of a bundle, ``flashhead.json``: what the bundle holds and how it was made.

The dataclasses below are the schema: a key that is missing, unknown or of the wrong type is an error that names it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from flashhead_edge.errors import BundleError
from flashhead_edge.layout import MANIFEST, SCHEMA_VERSION, row_tables
from flashhead_edge.typed_json import JsonDocument

_DOCUMENT = JsonDocument(MANIFEST, SCHEMA_VERSION, BundleError, "export the model again")


@dataclass(frozen=True)
class SourceRecord:
    """The model that was exported: "folder", "hub" or "gguf", its name, type and fingerprint."""

    kind: str
    name: str
    model_type: str
    fingerprint: str


@dataclass(frozen=True)
class FileRecord:
    """Size and SHA-256 of a file of the bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class TensorRecord:
    """Where a tensor lies in a data file; offset and length in bytes."""

    file: str
    dtype: str
    shape: list[int]
    offset: int
    length: int


@dataclass(frozen=True)
class BatchProfile:
    """Batches that an engine takes, ``least`` to ``most``, and the one that it is tuned for."""

    least: int
    tuned: int
    most: int


@dataclass(frozen=True)
class TensorRtRecord:
    """What must be known to build an engine of a graph.

    Attributes:
        form: "reduce" or "matmul": of stage 1, or of a dense head.
        centroid_precision: "fp32", "fp16", "int8", "fp8" or "int4"; None for a dense head.
        cluster_precision: The same, of the rows; int4 for a dense head only.
        opset: Opset of the graph, which says what versions parse it.
        least_compute_capability: Of a GPU that has the graph's types, such as "8.9".
        batch: The profile.
        weights: Where the tensors lie that are inputs, by the input's name; none where weights are in the graph.
    """

    form: str
    centroid_precision: str | None
    cluster_precision: str
    opset: int
    least_compute_capability: str
    batch: BatchProfile
    weights: dict[str, TensorRecord]


@dataclass(frozen=True)
class GraphRecord:
    """A graph's file and the names of its inputs and outputs; ``tensorrt`` for a graph in the form of TensorRT."""

    file: str
    inputs: list[str]
    outputs: list[str]
    tensorrt: TensorRtRecord | None = None


@dataclass(frozen=True)
class CalibrationRecord:
    """Where the calibration states came from ("builtin", "self", a file's name) and how many there were."""

    source: str
    states: int
    seed: int


@dataclass(frozen=True)
class QualityRecord:
    """Fidelity on states that had no part in calibration; None where there were none."""

    positions: int
    containment: float | None
    agreement: float | None


@dataclass(frozen=True)
class IndexRecord:
    """Facts of the index; ``always_scored`` counts slots, whole clusters of them."""

    num_clusters: int
    cluster_size: int
    num_probes: int
    always_scored: int
    rows_scored: int
    reduction: float
    centroid_precision: str
    cluster_precision: str
    clustering_seconds: float
    calibration: CalibrationRecord
    quality: QualityRecord


@dataclass(frozen=True)
class BodyRecord:
    """The decoder without its head; names of cache inputs and outputs go by layer."""

    precision: str
    hidden_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    past_key_names: list[str]
    past_value_names: list[str]
    present_key_names: list[str]
    present_value_names: list[str]


@dataclass(frozen=True)
class Manifest:
    """Everything that ``flashhead.json`` says.

    ``tables`` names the tensors that readers map without an ONNX parser: ``head.rows`` [T, C, H], or
    of int8 rows ``head.high_nibbles`` and ``head.low_nibbles`` [T, C, H / 32, 16] and ``head.row_scales``
    [T, C, H / 32]; ``head.slot_of_token`` [V]; and, where the head has one, ``head.row_bias`` [T, C].
    """

    created_by: str
    source: SourceRecord
    vocab_size: int
    hidden_size: int
    tied: bool
    logit_scale: float
    logit_softcap: float | None
    has_bias: bool
    embedding_scale: float
    bos_token_ids: list[int]
    eos_token_ids: list[int]
    always_scored_ids: list[int]
    index: IndexRecord
    graphs: dict[str, GraphRecord]
    tables: dict[str, TensorRecord]
    body: BodyRecord | None
    files: dict[str, FileRecord]
    schema_version: int = SCHEMA_VERSION

    @property
    def row_bytes(self) -> int:
        """Bytes of a stored row, its scales included."""
        return self.bytes_of_row(*row_tables(self.tables))

    @property
    def slots(self) -> int:
        """Rows that are stored, those of no token included."""
        clusters, size, *_ = self.tables[row_tables(self.tables)[0]].shape
        return clusters * size

    def bytes_of_row(self, *names: str) -> int:
        """Bytes that some tables have for each stored row."""
        return sum(self.tables[name].length for name in names) // self.slots

    def to_json(self) -> str:
        """The text of ``flashhead.json``."""
        fields = dataclasses.asdict(self)
        ordered = {"schema_version": fields.pop("schema_version"), **fields}
        return json.dumps(ordered, indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Read a manifest.

        Raises:
            BundleError: It is not JSON, of another schema version, or does not follow the schema.
        """
        return _DOCUMENT.read(Manifest, text)
