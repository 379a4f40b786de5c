"""Bundles that engines can be built of: a small random head with its graphs for TensorRT, without torch."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle, hash_file
from flashhead_edge.export.graph_files import load_graph
from flashhead_edge.export.tensorrt_dense import write_tensorrt_dense_head
from flashhead_edge.export.tensorrt_head import TensorRtOptions, write_tensorrt_head
from flashhead_edge.lm_head import LmHead
from flashhead_edge.manifest import GraphRecord, TensorRtRecord
from tests.tiny_heads import head_bundle, random_head, random_index, write_tables

#: Polygraphy is not imported to see whether it is there: that settles which of the two packages it uses.
needs_polygraphy = pytest.mark.skipif(
    importlib.util.find_spec("polygraphy") is None, reason="make test-tensorrt installs it"
)
VOCAB, WIDTH, SIZE, PROBES = 1000, 64, 8, 6


def engine_bundle(
    folder: Path,
    *,
    seed: int = 0,
    probes: int = PROBES,
    dense: bool = False,
    head: LmHead | None = None,
    **options: Any,
) -> Bundle:
    """A bundle with ``head_tensorrt`` and, if asked for, ``dense_tensorrt``; ``options`` are ``TensorRtOptions``'."""
    head = head or random_head(VOCAB, WIDTH, seed=seed)
    index = random_index(head, SIZE, always=(0, 5), seed=seed)
    bundle = head_bundle(folder, head, index, probes, rows="float16")
    tables = write_tables(folder, head, index, probes, centroids="fp32", rows="float16")  # the same files again
    name = layout.TENSORRT_HEAD_GRAPH
    record = write_tensorrt_head(folder, tables, index, TensorRtOptions(**options), name=name)
    graphs = {"head_tensorrt": _graph(folder, name, record)}
    if dense:
        name = layout.TENSORRT_DENSE_GRAPH
        graphs["dense_tensorrt"] = _graph(folder, name, write_tensorrt_dense_head(folder, head, "fp16", name=name))
    manifest = bundle.manifest
    files = {path.name: hash_file(path) for path in sorted(folder.iterdir()) if path.name != layout.MANIFEST}
    changed = dataclasses.replace(manifest, graphs={**manifest.graphs, **graphs}, files=files)
    (folder / layout.MANIFEST).write_text(changed.to_json(), encoding="utf-8")
    return Bundle.open(folder)


def _graph(folder: Path, name: str, record: TensorRtRecord) -> GraphRecord:
    graph = load_graph(folder / name).graph
    inputs, outputs = ([value.name for value in values] for values in (graph.input, graph.output))
    return GraphRecord(name, inputs, outputs, record)
