"""Puts together the manifest of a bundle that is otherwise written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashhead_edge import layout
from flashhead_edge._version import __version__
from flashhead_edge.bundle import hash_file
from flashhead_edge.export.body import BodyInfo
from flashhead_edge.export.graph_files import load_graph
from flashhead_edge.export.head_tables import WrittenHead
from flashhead_edge.export.heads import embedding_scale
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.sources import ModelSource
from flashhead_edge.export.special_tokens import SpecialTokens
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.lm_head import LmHead
from flashhead_edge.manifest import (
    BodyRecord,
    CalibrationRecord,
    FileRecord,
    GraphRecord,
    IndexRecord,
    Manifest,
    QualityRecord,
    SourceRecord,
    TensorRtRecord,
)
from flashhead_edge.progress import Progress

_TENSORRT_GRAPHS = {
    layout.TENSORRT_HEAD_GRAPH: "head_tensorrt",
    layout.TENSORRT_DENSE_GRAPH: "dense_tensorrt",
}


@dataclass(frozen=True)
class ManifestWriter:
    """What is the same for the whole export.

    Attributes:
        folder: The bundle, complete but for the manifest.
        source: The model.
        head: Its dense head.
        options: How it was exported.
        num_probes: P.
    """

    folder: Path
    source: ModelSource
    head: LmHead
    options: ExportOptions
    num_probes: int

    def manifest(
        self,
        *,
        index: HeadIndex,
        written: WrittenHead,
        body: BodyInfo | None,
        special: SpecialTokens,
        clustering_seconds: float,
        calibration: CalibrationRecord,
        quality: QualityRecord,
        tensorrt: Mapping[str, TensorRtRecord],
        progress: Progress,
    ) -> Manifest:
        """Hash the files and collect the facts.

        Args:
            index: The head's index.
            written: Where its tensors lie.
            body: The body, if there is one.
            special: Special tokens of the model.
            clustering_seconds: How long the index took.
            calibration: Where its states came from.
            quality: Fidelity on states kept for the check.
            tensorrt: What to know of each graph for TensorRT, by file name.
            progress: Told of every file that is hashed.
        """
        own = written.tables
        refs = (*own.rows.refs, written.slot_of_token, own.row_bias, own.low_bit_codes, own.low_bit_scales)
        tables = {ref.name: ref for ref in refs if ref is not None}
        graphs = {"head": layout.HEAD_GRAPH, "head_native": layout.NATIVE_HEAD_GRAPH}
        graphs |= {_TENSORRT_GRAPHS[file]: file for file in tensorrt}
        if body is not None:
            graphs |= {"body": layout.BODY_GRAPH, "decode": layout.DECODE_GRAPH, "dense": layout.DENSE_GRAPH}
            graphs |= {"decode_native": layout.NATIVE_DECODE_GRAPH, "dense_native": layout.NATIVE_DENSE_GRAPH}
            graphs |= {"decode_cuda": layout.CUDA_DECODE_GRAPH, "dense_cuda": layout.CUDA_DENSE_GRAPH}
        return Manifest(
            created_by=f"flashhead-edge {__version__}",
            source=SourceRecord(self.source.kind, self.source.name, self.source.model_type, self.source.fingerprint()),
            vocab_size=index.vocab_size,
            hidden_size=index.hidden_size,
            tied=self.head.tied,
            logit_scale=self.head.logit_scale,
            logit_softcap=self.head.logit_softcap,
            has_bias=self.head.bias is not None,
            embedding_scale=embedding_scale(self.source),
            bos_token_ids=list(special.bos),
            eos_token_ids=list(special.eos),
            always_scored_ids=[int(token) for token in index.always_scored],
            index=IndexRecord(
                num_clusters=index.num_clusters,
                cluster_size=index.cluster_size,
                num_probes=self.num_probes,
                always_scored=index.num_always_clusters * index.cluster_size,
                rows_scored=index.rows_scored(self.num_probes),
                reduction=index.reduction(self.num_probes),
                centroid_precision=self.options.portable_centroids,
                cluster_precision=written.cluster_precision,
                clustering_seconds=clustering_seconds,
                calibration=calibration,
                quality=quality,
            ),
            graphs={name: _graph_record(self.folder / file, tensorrt.get(file)) for name, file in graphs.items()},
            tables={name: ref.record() for name, ref in tables.items()},
            body=None if body is None else _body_record(body),
            files=self._hashes(progress),
        )

    def _hashes(self, progress: Progress) -> dict[str, FileRecord]:
        """Size and SHA-256 of every file."""
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        records = {}
        for number, path in enumerate(files, start=1):
            records[path.name] = hash_file(path)
            progress("hashing files", number, len(files))
        return records


def _graph_record(path: Path, tensorrt: TensorRtRecord | None) -> GraphRecord:
    graph = load_graph(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    return GraphRecord(path.name, inputs, [value.name for value in graph.output], tensorrt)


def _body_record(body: BodyInfo) -> BodyRecord:
    values: dict[str, Any] = {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(body).items()
    }
    return BodyRecord(**values)
