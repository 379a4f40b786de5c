"""The manifest of a bundle, ``flashhead.json``: what the bundle holds and how it was made.

The dataclasses below are the schema: a key that is missing, unknown or of the wrong type is an error that names it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from flashhead_edge.errors import BundleError
from flashhead_edge.layout import MANIFEST, SCHEMA_VERSION

_Record = TypeVar("_Record")


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

    ``tables`` names the tensors that readers map without an ONNX parser: ``head.rows`` [T, C, H],
    ``head.slot_of_token`` [V] and, where the head has them, ``head.row_bias`` [T, C].
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
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and endless nesting
            raise BundleError(f"{MANIFEST} is not JSON.", found=str(error), hint="export the model again") from error
        if not isinstance(data, dict) or not isinstance(data.get("schema_version"), int):
            raise BundleError(f"{MANIFEST} is not a bundle manifest.", expected="an object with 'schema_version'")
        version = data["schema_version"]
        if version != SCHEMA_VERSION:
            newer = version > SCHEMA_VERSION
            raise BundleError(
                "The bundle is of another schema version.",
                found=f"version {version}, made by {data.get('created_by', 'an unknown program')}",
                expected=f"version {SCHEMA_VERSION}",
                hint="pip install --upgrade flashhead-edge" if newer else "export the model again",
            )
        return _read(Manifest, data, "")


def _read(record: type[_Record], data: Any, place: str) -> _Record:
    """Build a dataclass from JSON, checking every key and type."""
    if not isinstance(data, dict):
        raise BundleError(f"{MANIFEST}: {place or 'the document'} is not an object.", found=type(data).__name__)
    hints = typing.get_type_hints(record)
    fields = dataclasses.fields(record)  # type: ignore[arg-type]
    names = {item.name for item in fields}
    needed = {item.name for item in fields if item.default is not None}
    missing, unknown = sorted(needed - data.keys()), sorted(data.keys() - names)
    if missing or unknown:
        raise BundleError(
            f"{MANIFEST}: the keys of {place or 'the document'} are not those of schema version {SCHEMA_VERSION}.",
            found=", ".join([*(f"no {key!r}" for key in missing), *(f"unknown {key!r}" for key in unknown)]),
            hint="export the model again",
        )
    return record(**{name: _value(hints[name], data[name], f"{place}{name}") for name in names & data.keys()})


def _value(kind: Any, value: Any, place: str) -> Any:
    """Check one value against its annotation."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (part for part in arguments if part is not type(None))
        return _value(kind, value, place)
    if dataclasses.is_dataclass(kind):
        return _read(typing.cast("type[Any]", kind), value, f"{place}.")
    if origin is list and isinstance(value, list):
        return [_value(arguments[0], item, f"{place}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _value(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _finite(value, place)
    if isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise BundleError(
        f"{MANIFEST}: {place} has the wrong type.",
        found=type(value).__name__,
        expected=getattr(kind, "__name__", str(kind)),
        hint="export the model again",
    )


def _finite(value: float, place: str) -> float:
    """A number as float; JSON readers let NaN, infinity and whole numbers beyond any float pass."""
    if not -sys.float_info.max <= value <= sys.float_info.max:
        raise BundleError(f"{MANIFEST}: {place} is not a finite number.", hint="export the model again")
    return float(value)
