"""A model into a bundle: head, calibration, index, graphs, body, manifest."""

from __future__ import annotations

import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import BodyExportError
from flashhead_edge.export.body import BodyInfo, Precision, export_body
from flashhead_edge.export.calibration import Calibration, calibrate
from flashhead_edge.export.decode_graph import write_decode_graph
from flashhead_edge.export.embedding_graph import EmbeddingTable
from flashhead_edge.export.graph_files import check_graph, save_graph
from flashhead_edge.export.head_graph import dense_graph, gpu_head_graph, two_stage_graph
from flashhead_edge.export.head_tables import WrittenHead, write_embedding_data, write_head_data
from flashhead_edge.export.heads import embedding_scale, read_embedding, read_head
from flashhead_edge.export.manifest_writer import ManifestWriter
from flashhead_edge.export.models import load_model, model_folder
from flashhead_edge.export.native_graph import native_dense_graph, native_head_graph
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.plan import ExportPlan, plan_export
from flashhead_edge.export.sources import ModelSource, resolve_source
from flashhead_edge.export.special_tokens import special_token_ids
from flashhead_edge.export.stored_rows import StoredRows
from flashhead_edge.export.tensorrt_dense import write_tensorrt_dense_head
from flashhead_edge.export.tensorrt_head import write_tensorrt_head
from flashhead_edge.export.tensorrt_states import fit_int8_states
from flashhead_edge.export.tokenizer_files import save_tokenizer
from flashhead_edge.files import check_free_space, new_folder
from flashhead_edge.index.build import build_index
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.index.storage import save_index
from flashhead_edge.lm_head import LmHead
from flashhead_edge.manifest import CalibrationRecord, Manifest, QualityRecord, TensorRtRecord
from flashhead_edge.progress import Progress, no_progress


def export_bundle(
    source: str | Path,
    output: str | Path,
    options: ExportOptions | None = None,
    *,
    force: bool = False,
    progress: Progress = no_progress,
) -> Bundle:
    """Export a model.

    Args:
        source: Hugging Face folder, ``.gguf`` file, or Hub id (where no such path exists).
        output: Folder to write; it appears whole or not at all.
        options: How to export.
        force: Replace the output if it exists.
        progress: Told of every stage.

    Returns:
        The bundle, opened and verified.

    Raises:
        FlashHeadError: One of its kinds, depending on what is wrong: options, model files, calibration, disk.
    """
    options = options or ExportOptions()
    output = Path(output)
    with new_folder(output, force=force) as folder:
        model = resolve_source(str(source), offline=options.offline, revision=options.revision)
        head = read_head(model)
        plan = plan_export(model, head, options)
        check_free_space(folder, int(plan.table_bytes * (1.3 if head.tied else 2.3)) + (64 << 20))
        manifest = _Export(model, head, plan, options, folder, progress).run()
        (folder / layout.MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle.open(output)


class _Export:
    """One export: the steps share the model, loaded at most once."""

    def __init__(
        self,
        source: ModelSource,
        head: LmHead,
        plan: ExportPlan,
        options: ExportOptions,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._source = source
        self._head = head
        self._plan = plan
        self._options = options
        self._folder = folder
        self._progress = progress

    def run(self) -> Manifest:
        special = special_token_ids(self._source)
        options = self._options

        @lru_cache(maxsize=1)
        def load() -> tuple[Any, Any]:
            self._progress("loading the model", 0, 1)
            loaded = load_model(self._source, device=options.device, trust_remote_code=options.trust_remote_code)
            self._progress("loading the model", 1, 1)
            return loaded

        calibration = calibrate(options.calibration, load, seed=options.index.seed, progress=self._progress)
        start = time.perf_counter()
        index = build_index(
            self._head,
            calibration.states.hidden,
            options.index,
            always=tuple(dict.fromkeys([*special.eos, *special.bos, *special.control])),
            num_probes=self._plan.num_probes,
            device=options.device,
            progress=self._progress,
        )
        seconds = time.perf_counter() - start
        save_index(index, self._folder / layout.INDEX)
        written = write_head_data(
            self._folder,
            self._head,
            index,
            num_probes=self._plan.num_probes,
            centroid_precision=options.portable_centroids,
            cluster_precision=options.portable_clusters,
            low_bit_rows=options.low_bit_rows,
        )
        self._save_head(two_stage_graph(written.tables), layout.HEAD_GRAPH)
        self._save_head(native_head_graph(written.tables), layout.NATIVE_HEAD_GRAPH)
        tensorrt = {}
        if options.target != "ort":
            tensorrt = self._write_tensorrt(written, index, calibration.states.hidden)
        save_tokenizer(self._source, self._folder, tokenizer=load()[1] if load.cache_info().currsize else None)
        body = None
        if options.body_precision is not None:
            loaded = load() if load.cache_info().currsize else None
            load.cache_clear()
            body = self._export_body(options.body_precision, loaded)
            self._write_whole_model(written)
        return ManifestWriter(self._folder, self._source, self._head, options, self._plan.num_probes).manifest(
            index=index,
            written=written,
            body=body,
            special=special,
            clustering_seconds=seconds,
            calibration=CalibrationRecord(calibration.source, len(calibration.states), options.index.seed),
            quality=self._measure(index, calibration),
            tensorrt=tensorrt,
            progress=self._progress,
        )

    def _save_head(self, graph: Any, name: str) -> None:
        save_graph(graph, self._folder / name)
        check_graph(self._folder / name)

    def _write_tensorrt(
        self, written: WrittenHead, index: HeadIndex, states: npt.NDArray[np.float32]
    ) -> dict[str, TensorRtRecord]:
        """Write the head for TensorRT over the same table, and the dense one if it was asked for, by file name."""
        options = self._options.tensorrt(fit_int8_states(states, index.centroids))
        name = layout.TENSORRT_HEAD_GRAPH
        records = {name: write_tensorrt_head(self._folder, written.tables, index, options, name=name)}
        if self._options.tensorrt_dense is not None:
            name = layout.TENSORRT_DENSE_GRAPH
            records[name] = write_tensorrt_dense_head(
                self._folder,
                self._head,
                self._options.tensorrt_dense,  # type: ignore[arg-type]  # checked with the options
                name=name,
                max_batch=options.max_batch,
                int8_states=fit_int8_states(states, self._head.rows),
            )
        for file in records:
            check_graph(self._folder / file)
        return records

    def _export_body(self, precision: str, loaded: tuple[Any, Any] | None) -> BodyInfo:
        with tempfile.TemporaryDirectory(prefix="model-", dir=self._folder) as scratch:
            folder = model_folder(self._source, Path(scratch), loaded=loaded)
            del loaded
            body_precision: Precision = "int4" if precision == "int4" else "int8" if precision == "int8" else "fp32"
            info = export_body(
                folder,
                self._folder,
                precision=body_precision,
                max_positions=self._options.max_positions,
                progress=self._progress,
            )
        if info.hidden_size != self._head.hidden_size:
            raise BodyExportError(
                "The exported body does not fit the head.",
                found=f"hidden size {info.hidden_size}",
                expected=self._head.hidden_size,
            )
        return info

    def _write_whole_model(self, written: WrittenHead) -> None:
        """Join body and head, two-stage and dense, over the same tables."""
        scale = embedding_scale(self._source)
        if self._head.tied:
            embedding = EmbeddingTable(written.tables.rows, written.slot_of_token, scale)
        else:
            table = write_embedding_data(self._folder, read_embedding(self._source), self._options.portable_clusters)
            embedding = EmbeddingTable(StoredRows(table), None, scale)
        parts = {  # heads that are no files of the bundle
            "gpu-head.onnx": gpu_head_graph(written.tables),
            "dense-head.onnx": dense_graph(written.tables),
            "native-dense-head.onnx": native_dense_graph(written.tables),
        }
        for name, graph in parts.items():
            save_graph(graph, self._folder / name)
        for head, output in (
            (layout.HEAD_GRAPH, layout.DECODE_GRAPH),
            (layout.NATIVE_HEAD_GRAPH, layout.NATIVE_DECODE_GRAPH),
            ("gpu-head.onnx", layout.CUDA_DECODE_GRAPH),
            ("dense-head.onnx", layout.DENSE_GRAPH),
            ("native-dense-head.onnx", layout.NATIVE_DENSE_GRAPH),
            ("dense-head.onnx", layout.CUDA_DENSE_GRAPH),
        ):
            write_decode_graph(self._folder, embedding=embedding, head_graph=head, output=output)
        for name in parts:
            (self._folder / name).unlink()

    def _measure(self, index: HeadIndex, calibration: Calibration) -> QualityRecord:
        """Run the written head on the states kept for the check."""
        from flashhead_edge.index.agreement import measure_agreement
        from flashhead_edge.runtimes.base import HeadShape
        from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead

        check = calibration.check
        if not len(check):
            return QualityRecord(0, None, None)
        shape = HeadShape(
            index.vocab_size,
            index.hidden_size,
            index.num_clusters,
            index.cluster_size,
            self._plan.num_probes,
            index.num_candidates(self._plan.num_probes),
        )
        runtime = OnnxRuntimeHead(self._folder / layout.HEAD_GRAPH, shape)
        containment, agreement = measure_agreement(self._head, runtime, check.hidden, progress=self._progress)
        return QualityRecord(len(check), containment, agreement)
