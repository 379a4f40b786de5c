"""Graphs of real models' full shapes over files with holes, so that a gigabyte of weights costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx

from flashhead_edge.export.graph_files import save_graph
from flashhead_edge.export.head_graph import HeadTables
from flashhead_edge.export.stored_centroids import StoredCentroids
from flashhead_edge.export.stored_rows import StoredRows
from flashhead_edge.export.tensor_ref import TensorRef
from flashhead_edge.export.tensorrt_dense import dense_tensorrt_graph
from flashhead_edge.export.tensorrt_graph import tensorrt_graph
from flashhead_edge.export.tensorrt_head import TensorRtOptions
from flashhead_edge.export.tensorrt_rows import CODE_TYPES, RowPrecision, Rows, int4_block
from flashhead_edge.export.tensorrt_states import Int8States
from flashhead_edge.export.tensorrt_weights import weights_as_inputs

BITS = {"int4": 4, "float8e4m3fn": 8}


@dataclass(frozen=True)
class Shape:
    """A head with clusters of 32 and the probes of the default reduction."""

    vocab: int
    width: int
    probes: int
    size: int = 32

    @property
    def clusters(self) -> int:
        return -(-self.vocab // self.size)


SHAPES = {
    "gemma-3-270m": Shape(262144, 640, 365),
    "smollm2-135m": Shape(49152, 576, 111),
    "llama-3.2-1b": Shape(128256, 2048, 160),
    "qwen3-1.7b": Shape(151936, 2048, 190),
}


class SparseFile:
    """A data file of zeros, or of ones where zeros would be refused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = 0
        path.write_bytes(b"")

    def tensor(self, name: str, dtype: str, shape: tuple[int, ...], *, ones: bool = False) -> TensorRef:
        length = (prod(shape) * (BITS.get(dtype) or np.dtype(dtype).itemsize * 8) + 7) // 8
        ref = TensorRef(name, dtype, shape, self._path.name, self._end, length)
        self._end += -(-length // 4096) * 4096
        with self._path.open("r+b") as file:
            file.truncate(self._end)
            if ones:
                file.seek(ref.offset)
                file.write(np.ones(shape, dtype).tobytes())
        return ref

    def rows(self, name: str, shape: tuple[int, ...], precision: RowPrecision, block_scales: str = "float32") -> Rows:
        codes = self.tensor(name, CODE_TYPES[precision], shape)
        if precision in ("fp32", "fp16"):
            return Rows(precision, codes)
        groups, kind = shape[:-1], "float32"
        if precision == "int4":
            groups, kind = (*groups, shape[-1] // int4_block(shape[-1])), block_scales
        return Rows(precision, codes, self.tensor(f"{name}.scales", kind, groups, ones=True))


def two_stage(folder: Path, shape: Shape, options: TensorRtOptions, *, inputs: str = "none") -> Path:
    """A two-stage head; ``inputs`` are "none", only the "rows", or "all" weights."""
    data = SparseFile(folder / "sparse.data")
    total, clusters = shape.clusters + 2, shape.clusters
    kind = "float16" if options.form == "matmul" else "float32"
    centroids = data.rows("head.tensorrt.centroids", (clusters, shape.width), options.centroid_precision, kind)
    rows = data.rows("head.rows", (total, shape.size, shape.width), options.cluster_precision)
    tables = HeadTables(
        rows=StoredRows(rows.codes),
        token_order=data.tensor("head.token_order", "int32", (total, shape.size)),
        row_bias=None,
        centroids=StoredCentroids(centroids.codes),
        centroid_bias=data.tensor("head.centroid_bias", "float32", (clusters,)),
        selection_offset=data.tensor("head.selection_offset", "float32", (clusters,)),
        num_probes=shape.probes,
        num_clusters=clusters,
        logit_scale=1.0,
        logit_softcap=None,
    )
    model = tensorrt_graph(
        tables, centroids, rows, form=options.form, int8_states=Int8States(20.0, np.ones(shape.width, np.float32))
    )
    if inputs == "all":
        weights_as_inputs(model)
    elif inputs == "rows":
        as_input(model, "head.rows")
    save_graph(model, folder / "head.onnx")
    return folder / "head.onnx"


def dense(folder: Path, shape: Shape, precision: RowPrecision) -> Path:
    """A dense head; float16 rows, which nothing has to read while building, are an input."""
    rows = SparseFile(folder / "sparse.data").rows(
        "head.dense.rows", (shape.vocab, shape.width), precision, block_scales="float16"
    )
    model = dense_tensorrt_graph(rows, None, int8_states=Int8States(20.0, np.ones(shape.width, np.float32)))
    if precision == "fp16":
        as_input(model, "head.dense.rows")
    save_graph(model, folder / "dense.onnx")
    return folder / "dense.onnx"


def as_input(model: onnx.ModelProto, name: str) -> None:
    """Turn one initializer into an input."""
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    model.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
    model.graph.initializer.remove(tensor)
