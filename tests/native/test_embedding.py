"""Token embeddings by the native library: the numbers that standard operators give, from every table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from flashhead_edge import layout
from flashhead_edge.export.embedding_graph import EMBEDDINGS, EmbeddingTable, native_embedding, standard_embedding
from flashhead_edge.export.graph_builder import GraphBuilder
from flashhead_edge.export.stored_rows import StoredRows
from flashhead_edge.export.tensor_ref import DataFile
from flashhead_edge.runtimes.session import open_session
from tests.tiny_heads import int8_head, random_head, random_index, write_tables

VOCAB, WIDTH = 211, 96


def embedding_of(folder: Path, rows: str, *, by_token: bool, scale: float) -> EmbeddingTable:
    """The table of a tied model, or one by token, in a data file."""
    head = int8_head(VOCAB, WIDTH) if rows == "int8" else random_head(VOCAB, WIDTH)
    if by_token:
        with DataFile(folder / layout.EMBEDDING_DATA) as data:
            return EmbeddingTable(StoredRows(data.append(layout.EMBEDDING_ROWS, head.rows.astype(rows))), None, scale)
    index = random_index(head, 7, always=(3, 50))
    tables = write_tables(folder, head, index, 3, rows=rows)
    with DataFile(folder / "slots.data") as data:
        return EmbeddingTable(tables.rows, data.append(layout.SLOT_OF_TOKEN, index.slot_of_token), scale)


def save(graph: GraphBuilder, path: Path) -> Path:
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "S"])
    out = helper.make_tensor_value_info(EMBEDDINGS, TensorProto.FLOAT, ["B", "S", WIDTH])
    made = helper.make_graph(graph.nodes, "embedding", [ids], [out], list(graph.initializers.values()))
    opsets = [helper.make_opsetid("", graph.opset), helper.make_opsetid("flashhead_edge", 1)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.parametrize("scale", [1.0, WIDTH**0.5])
@pytest.mark.parametrize(
    ("rows", "by_token"),
    [("float32", False), ("float16", False), ("int8", False), ("float32", True), ("float16", True)],
)
def test_it_gives_what_standard_operators_give(tmp_path: Path, rows: str, by_token: bool, scale: float) -> None:
    embedding = embedding_of(tmp_path, rows, by_token=by_token, scale=scale)
    native = open_session(save(native_embedding(embedding), tmp_path / f"a{layout.NATIVE_SUFFIX}"), threads=2)
    portable = open_session(save(standard_embedding(embedding), tmp_path / "b.onnx"))
    random = np.random.default_rng(0)
    for shape in ((1, 1), (1, 7), (3, 40)):
        ids = random.integers(0, VOCAB, shape)
        found, expected = (session.run(None, {"input_ids": ids})[0] for session in (native, portable))
        assert found.shape == (*shape, WIDTH)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert native.run(None, {"input_ids": np.zeros((2, 0), np.int64)})[0].shape == (2, 0, WIDTH)
    for wrong in (-1, VOCAB):
        with pytest.raises(failures.InvalidArgument, match="token id is out of range"):
            native.run(None, {"input_ids": np.array([[wrong]])})
