"""What the rows that a graph for TensorRT refers to stand for, read from the file by the types' definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from flashhead_edge import Bundle, layout
from flashhead_edge.export.graph_files import load_graph
from flashhead_edge.export.head_graph import HeadTables
from flashhead_edge.export.stored_centroids import StoredCentroids
from flashhead_edge.export.stored_rows import StoredRows
from flashhead_edge.export.tensor_ref import TensorRef
from flashhead_edge.export.tensorrt_rows import Rows


def float8_values(bits: np.ndarray) -> np.ndarray:
    """float8e4m3fn: a sign, four bits of exponent with bias 7, three of significand."""
    exponent, fraction = (bits >> 3) & 15, (bits & 7).astype(np.float32) / 8
    magnitude = np.where(exponent == 0, fraction * 2.0**-6, (1 + fraction) * 2.0 ** (exponent.astype(np.float32) - 7))
    return np.where(bits >> 7, -magnitude, magnitude).astype(np.float32)


def stored_rows(folder: Path, rows: Rows) -> np.ndarray:
    """[..., H] float32."""
    codes = np.array(rows.codes.read(folder))
    if rows.precision == "fp8":
        values = float8_values(codes).reshape(rows.codes.shape)
    elif rows.precision == "int4":
        halves = np.stack([codes & 15, codes >> 4], axis=-1).astype(np.int8)
        values = np.where(halves > 7, halves - 16, halves).reshape(rows.codes.shape).astype(np.float32)
    else:
        values = codes.astype(np.float32)
    if rows.scales is None:
        return values
    scales = np.array(rows.scales.read(folder)).astype(np.float32)
    if rows.precision != "int4":
        return values * scales[..., None]
    return values * np.repeat(scales, values.shape[-1] // scales.shape[-1], axis=-1)


def external_refs(graph: Path) -> dict[str, TensorRef]:
    """Every tensor of a graph that lies in a data file."""
    refs = {}
    for tensor in load_graph(graph).graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        refs[tensor.name] = TensorRef(
            tensor.name,
            "float32" if kind == "float" else kind,
            tuple(tensor.dims),
            where["location"],
            int(where["offset"]),
            int(where["length"]),
        )
    return refs


def written_rows(graph: Path, name: str, precision: Any) -> np.ndarray | None:
    """The numbers that a written graph's rows of that name stand for, [..., H]; None where it has none."""
    refs = external_refs(graph)
    return stored_rows(graph.parent, Rows(precision, refs[name], refs.get(f"{name}.scales"))) if name in refs else None


def tables_of(bundle: Bundle) -> HeadTables:
    """Where the tensors of a bundle's ``head.onnx`` lie."""
    manifest = bundle.manifest
    refs = external_refs(bundle.path / layout.HEAD_GRAPH)
    return HeadTables(
        rows=StoredRows.among(refs),
        token_order=refs[layout.TOKEN_ORDER],
        row_bias=refs.get(layout.ROW_BIAS),
        centroids=StoredCentroids.among(refs),
        centroid_bias=refs["head.centroid_bias"],
        selection_offset=refs["head.selection_offset"],
        num_probes=manifest.index.num_probes,
        num_clusters=manifest.index.num_clusters,
        logit_scale=manifest.logit_scale,
        logit_softcap=manifest.logit_softcap,
    )
