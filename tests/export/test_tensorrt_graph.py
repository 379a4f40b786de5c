"""The TensorRT form of the head: the same numbers as the reference, in operators that every TensorRT reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashhead_edge.errors import OptionError
from flashhead_edge.export.graph_files import check_graph
from flashhead_edge.export.head_graph import HeadTables
from flashhead_edge.export.tensorrt_graph import (
    MOST_PROBES,
    PRECISIONS,
    Rows,
    quantize_whole_rows,
    tensorrt_graph,
    write_tensorrt_head,
)
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.lm_head import LmHead
from flashhead_edge.runtimes.base import HeadOutput, HeadShape
from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
from flashhead_edge.runtimes.reference import ReferenceHead
from tests.tiny_heads import random_head, random_index, random_states, table_bias, table_rows, write_tables

VOCAB, WIDTH, SIZE, PROBES, ALWAYS = 301, 48, 8, 5, (0, 7, 300)
FEATURES: dict[str, dict[str, Any]] = {"plain": {}, "all": {"bias": True, "logit_scale": 0.5, "logit_softcap": 4.0}}


def dequantized(rows: np.ndarray, precision: str) -> np.ndarray:
    if precision == "fp16":
        return rows.astype(np.float16).astype(np.float32)
    codes, scales = quantize_whole_rows(rows)
    return codes * scales[..., None]


def shape_of(index: HeadIndex) -> HeadShape:
    clusters, size = index.num_clusters, index.cluster_size
    return HeadShape(index.vocab_size, index.hidden_size, clusters, size, PROBES, index.num_candidates(PROBES))


def both(folder: Path, head: LmHead, index: HeadIndex, precisions: tuple[str, str], batch: int) -> list[HeadOutput]:
    """The written graph in ONNX Runtime, and the reference on the numbers that it stores."""
    centroids, rows = precisions
    tables = write_tables(folder, head, index, PROBES, rows="float16")
    path = write_tensorrt_head(
        folder, tables, index, centroid_precision=centroids, cluster_precision=rows, name="head.tensorrt.onnx"
    )
    check_graph(path)
    states = random_states(batch, index.hidden_size)
    reference = ReferenceHead(
        replace(index, centroids=dequantized(index.centroids, centroids)),
        dequantized(table_rows(head, index, "float16"), rows),
        PROBES,
        row_bias=table_bias(head, index),
        logit_scale=head.logit_scale,
        logit_softcap=head.logit_softcap,
    )
    return [OnnxRuntimeHead(path, shape_of(index)).run(states), reference.run(states)]


def check_same(found: HeadOutput, expected: HeadOutput) -> None:
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_allclose(found.cluster_scores, expected.cluster_scores, rtol=1e-4, atol=1e-4)
    by_id = [np.argsort(output.candidate_ids, axis=1, kind="stable") for output in (found, expected)]
    for name, tolerance in (("candidate_ids", 0.0), ("candidate_logits", 1e-4)):
        mine, theirs = (
            np.take_along_axis(getattr(output, name), order, 1)
            for output, order in zip((found, expected), by_id, strict=True)
        )
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES.keys())
@pytest.mark.parametrize("rows", PRECISIONS)
@pytest.mark.parametrize("centroids", PRECISIONS)
def test_it_says_what_the_reference_says(tmp_path: Path, centroids: str, rows: str, features: dict[str, Any]) -> None:
    head = random_head(VOCAB, WIDTH, **features)
    check_same(*both(tmp_path, head, random_index(head, SIZE, always=ALWAYS), (centroids, rows), 7))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    vocab=st.integers(60, 200),
    width=st.integers(1, 40),
    size=st.integers(1, 9),
    batch=st.integers(1, 9),
    rows=st.sampled_from(PRECISIONS),
)
def test_any_shape(tmp_path_factory: Any, vocab: int, width: int, size: int, batch: int, rows: str) -> None:
    head = random_head(vocab, width)
    check_same(*both(tmp_path_factory.mktemp("head"), head, random_index(head, size), ("int8", rows), batch))


@pytest.mark.parametrize("rows", PRECISIONS)
def test_only_standard_operators_in_the_form_that_fuses(tmp_path: Path, rows: str) -> None:
    head = random_head(VOCAB, WIDTH)
    index = random_index(head, SIZE, always=ALWAYS)
    tables = write_tables(tmp_path, head, index, PROBES, rows="float16")
    path = write_tensorrt_head(
        tmp_path, tables, index, centroid_precision="int8", cluster_precision=rows, name="h.onnx"
    )
    model = onnx.load(path, load_external_data=False)
    assert {node.domain for node in model.graph.node} == {""}
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"MatMul", "Gemm", "QuantizeLinear", "MatMulNBits", "Split"}
    maker = {output: node for node in model.graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    gather = next(node for node in model.graph.node if node.name == "/head/clusters/Gather")
    if rows == "int8":
        assert maker[gather.input[0]].op_type == "DequantizeLinear"
        assert list(stored[maker[gather.input[0]].input[1]].dims) == []
    else:
        entries = {entry.key: entry.value for entry in stored[gather.input[0]].external_data}
        assert entries["location"] == tables.rows.location


def test_more_probes_than_tensorrt_can_choose(tmp_path: Path) -> None:
    head = random_head(VOCAB, WIDTH)
    tables: HeadTables = write_tables(tmp_path, head, random_index(head, SIZE), PROBES)
    with pytest.raises(OptionError, match="cannot open this many") as caught:
        tensorrt_graph(
            replace(tables, num_probes=MOST_PROBES + 1), Rows(tables.centroids, None), Rows(tables.rows, None)
        )
    assert caught.value.found == MOST_PROBES + 1


@pytest.mark.parametrize("wrong", [("int7", "fp16"), ("fp16", "int-8")])
def test_unknown_precisions(tmp_path: Path, wrong: tuple[Any, Any]) -> None:
    head = random_head(VOCAB, WIDTH)
    index = random_index(head, SIZE)
    tables = write_tables(tmp_path, head, index, PROBES)
    with pytest.raises(OptionError, match="int"):
        write_tensorrt_head(
            tmp_path, tables, index, centroid_precision=wrong[0], cluster_precision=wrong[1], name="h.onnx"
        )


def test_rows_of_zeros_stay_zero() -> None:
    codes, scales = quantize_whole_rows(np.zeros((2, 3, 4), np.float16))
    assert not codes.any()
    assert not scales.any()
    codes, scales = quantize_whole_rows(np.array([[-2.0, 1.0]], np.float32))
    assert codes.tolist() == [[-127, 64]]
    assert scales == pytest.approx(2 / 127)
