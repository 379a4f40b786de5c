"""The TensorRT form of the head: the reference's numbers, in the operators and the opset that each precision needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashhead_edge import layout
from flashhead_edge.errors import OptionError
from flashhead_edge.export.graph_files import check_graph, load_graph
from flashhead_edge.export.head_graph import HeadTables
from flashhead_edge.export.tensor_ref import TensorRef
from flashhead_edge.export.tensorrt_head import (
    CENTROID_PRECISIONS,
    CLUSTER_PRECISIONS,
    TensorRtOptions,
    write_tensorrt_head,
)
from flashhead_edge.export.tensorrt_limits import MOST_NUMBERS, MOST_PROBES, check_limits
from flashhead_edge.export.tensorrt_states import fit_int8_states
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.lm_head import LmHead
from flashhead_edge.manifest import BatchProfile, TensorRtRecord
from flashhead_edge.runtimes.base import HeadOutput, HeadShape
from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
from flashhead_edge.runtimes.reference import ReferenceHead
from tests.tensorrt_oracle import written_rows
from tests.tiny_heads import by_token, random_head, random_index, random_states, table_bias, write_tables

VOCAB, WIDTH, SIZE, PROBES, ALWAYS = 301, 64, 8, 5, (0, 7, 300)
NAME = layout.TENSORRT_HEAD_GRAPH
FEATURES: dict[str, dict[str, Any]] = {"plain": {}, "all": {"bias": True, "logit_scale": 0.5, "logit_softcap": 4.0}}


def shape_of(index: HeadIndex) -> HeadShape:
    clusters, size = index.num_clusters, index.cluster_size
    return HeadShape(index.vocab_size, index.hidden_size, clusters, size, PROBES, index.num_candidates(PROBES))


def write(folder: Path, head: LmHead, index: HeadIndex, options: TensorRtOptions) -> tuple[HeadTables, TensorRtRecord]:
    tables = write_tables(folder, head, index, PROBES, rows="float16")
    record = write_tensorrt_head(folder, tables, index, options, name=NAME)
    check_graph(folder / NAME)
    return tables, record


def oracle(folder: Path, head: LmHead, index: HeadIndex, tables: HeadTables, options: TensorRtOptions) -> ReferenceHead:
    """The reference on the numbers that the graph stores."""
    centroids = written_rows(folder / NAME, "head.tensorrt.centroids", options.centroid_precision)
    rows = written_rows(folder / NAME, "head.tensorrt.rows", options.cluster_precision)
    if options.rounds_states:
        centroids = centroids / options.int8_states.divisors
    return ReferenceHead(
        replace(index, centroids=centroids),
        tables.rows.read(folder).clusters(slice(None)) if rows is None else rows,
        PROBES,
        row_bias=table_bias(head, index),
        logit_scale=head.logit_scale,
        logit_softcap=head.logit_softcap,
    )


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
@pytest.mark.parametrize("rows", CLUSTER_PRECISIONS)
@pytest.mark.parametrize("centroids", CENTROID_PRECISIONS)
def test_it_says_what_the_reference_says(tmp_path: Path, centroids: Any, rows: Any, features: dict[str, Any]) -> None:
    """Both stages in float32 on the stored numbers, to 1e-4 of logits of a few units."""
    head = random_head(VOCAB, WIDTH, **features)
    index = random_index(head, SIZE, always=ALWAYS)
    options = TensorRtOptions(centroids, rows)
    tables, _ = write(tmp_path, head, index, options)
    states = random_states(7, WIDTH)
    found = OnnxRuntimeHead(tmp_path / NAME, shape_of(index)).run(states)
    check_same(found, oracle(tmp_path, head, index, tables, options).run(states))


#: Of cluster scores of a few units: a float16 product's rounding, and for int8 that of a state of 64 numbers.
MATMUL_TOLERANCE = {"fp32": 1e-4, "fp16": 0.01, "fp8": 0.01, "int4": 0.01, "int8": 0.15}


@pytest.mark.parametrize("centroids", CENTROID_PRECISIONS)
def test_a_matrix_product_scores_clusters_to_its_rounding(tmp_path: Path, centroids: Any) -> None:
    head = random_head(VOCAB, WIDTH)
    index = random_index(head, SIZE, always=ALWAYS)
    states = random_states(20, WIDTH)
    options = TensorRtOptions(centroids, max_batch=32, int8_states=fit_int8_states(states, index.centroids))
    tables, record = write(tmp_path, head, index, options)
    assert (record.form, record.batch) == ("matmul", BatchProfile(1, 32, 32))
    found = OnnxRuntimeHead(tmp_path / NAME, shape_of(index)).run(states)
    expected = oracle(tmp_path, head, index, tables, options).run(states)
    tolerance = MATMUL_TOLERANCE[centroids]
    np.testing.assert_allclose(found.cluster_scores, expected.cluster_scores, rtol=0.001, atol=tolerance)
    # Rounded scores may open another cluster; what both opened has the same logits.
    mine, theirs = (by_token(out.candidate_ids, out.candidate_logits, VOCAB) for out in (found, expected))
    both = ~np.isnan(mine) & ~np.isnan(theirs)
    assert both.sum() > 0.8 * (~np.isnan(mine)).sum()
    np.testing.assert_allclose(mine[both], theirs[both], rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    vocab=st.integers(60, 200),
    blocks=st.integers(1, 3),
    size=st.integers(1, 9),
    batch=st.integers(1, 9),
    centroids=st.sampled_from(CENTROID_PRECISIONS),
    rows=st.sampled_from(CLUSTER_PRECISIONS),
)
def test_any_shape(
    tmp_path_factory: Any, vocab: int, blocks: int, size: int, batch: int, centroids: Any, rows: Any
) -> None:
    folder = tmp_path_factory.mktemp("head")
    width = blocks * 64 if centroids == "int4" else blocks * 13
    head = random_head(vocab, width)
    index = random_index(head, size)
    options = TensorRtOptions(centroids, rows)
    tables, _ = write(folder, head, index, options)
    states = random_states(batch, width)
    found = OnnxRuntimeHead(folder / NAME, shape_of(index)).run(states)
    check_same(found, oracle(folder, head, index, tables, options).run(states))


@pytest.mark.parametrize("rows", CLUSTER_PRECISIONS)
@pytest.mark.parametrize("centroids", CENTROID_PRECISIONS)
def test_standard_operators_in_the_form_that_fuses(tmp_path: Path, centroids: Any, rows: Any) -> None:
    head = random_head(VOCAB, WIDTH)
    index = random_index(head, SIZE, always=ALWAYS)
    tables, record = write(tmp_path, head, index, TensorRtOptions(centroids, rows))
    model = load_graph(tmp_path / NAME)
    assert {node.domain for node in model.graph.node} == {""}
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"MatMul", "Gemm", "QuantizeLinear", "MatMulNBits", "Split"}
    opset = 21 if centroids == "int4" else 19 if "fp8" in (centroids, rows) else 17
    assert model.opset_import[0].version == record.opset == opset
    maker = {output: node for node in model.graph.node for output in node.output}
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    gather = next(node for node in model.graph.node if node.name == "/head/clusters/Gather")
    if rows in ("int8", "fp8"):
        assert maker[gather.input[0]].op_type == "DequantizeLinear"
        assert list(held[maker[gather.input[0]].input[1]].dims) == []
    if rows == "fp16":
        entries = {entry.key: entry.value for entry in held[gather.input[0]].external_data}
        assert entries["location"] == tables.rows.data.location


@pytest.mark.parametrize(
    ("precisions", "capability"),
    [(("fp16", "int8"), "7.5"), (("int4", "fp16"), "8.0"), (("int4", "fp8"), "8.9"), (("fp8", "fp32"), "8.9")],
)
def test_the_record_says_which_gpus_have_the_types(tmp_path: Path, precisions: Any, capability: str) -> None:
    head = random_head(VOCAB, WIDTH)
    record = write(tmp_path, head, random_index(head, SIZE), TensorRtOptions(*precisions))[1]
    assert record.least_compute_capability == capability
    assert (record.centroid_precision, record.cluster_precision) == precisions
    assert (record.form, record.batch, record.weights) == ("reduce", BatchProfile(1, 1, 8), {})


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES.keys())
@pytest.mark.parametrize("precisions", [("int8", "fp16"), ("fp16", "int8"), ("fp32", "fp32")])
def test_weights_as_inputs(tmp_path: Path, precisions: Any, features: dict[str, Any]) -> None:
    """Fed from where the record says that they lie, the graph gives the same numbers, bit for bit."""
    head = random_head(VOCAB, WIDTH, **features)
    index = random_index(head, SIZE, always=ALWAYS)
    states = random_states(3, WIDTH)
    (tmp_path / "inside").mkdir()
    write(tmp_path / "inside", head, index, TensorRtOptions(*precisions))
    inside = onnxruntime.InferenceSession(tmp_path / "inside" / NAME).run(None, {"hidden_states": states})
    _, record = write(tmp_path, head, index, TensorRtOptions(*precisions, weight_inputs=True))
    assert {record.weights["head.token_order"].file, record.weights["head.centroid_bias"].file} == {layout.HEAD_DATA}
    if precisions[1] == "fp16":
        assert record.weights[layout.ROWS].file == layout.HEAD_DATA
    session = onnxruntime.InferenceSession(tmp_path / NAME)
    assert [value.name for value in session.get_inputs()] == ["hidden_states", *record.weights]
    feeds = {
        name: TensorRef(name, place.dtype, tuple(place.shape), place.file, place.offset, place.length).read(tmp_path)
        for name, place in record.weights.items()
    }
    for mine, theirs in zip(session.run(None, {"hidden_states": states, **feeds}), inside, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("precisions", [("int4", "fp8"), ("fp8", "int8")])
def test_low_bit_weights_as_inputs(tmp_path: Path, precisions: Any) -> None:
    """No large tensor stays inside, and types and shapes are those of the data."""
    head = random_head(VOCAB, WIDTH)
    _, record = write(tmp_path, head, random_index(head, SIZE), TensorRtOptions(*precisions, weight_inputs=True))
    graph = load_graph(tmp_path / NAME).graph
    assert not [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for value in list(graph.input)[1:]:
        place = record.weights[value.name]
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        assert {"float": "float32"}.get(kind, kind) == place.dtype
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == place.shape


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"centroid_precision": "int7"}, "did you mean"),
        ({"cluster_precision": "int4"}, "There is no cluster precision 'int4' for TensorRT"),
        ({"cluster_precision": "fp-8"}, "did you mean 'fp8'"),
        ({"max_batch": 0}, "too small"),
        ({"max_batch": 16, "weight_inputs": True}, "copies quantized centroids"),
    ],
)
def test_wrong_choices(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TensorRtOptions(**choices)


def test_int8_in_a_matrix_product_needs_a_bound(tmp_path: Path) -> None:
    head = random_head(VOCAB, WIDTH)
    with pytest.raises(OptionError, match="how large the state's numbers are"):
        write(tmp_path, head, random_index(head, SIZE), TensorRtOptions(max_batch=16))


def test_more_probes_than_tensorrt_can_choose(tmp_path: Path) -> None:
    head = random_head(VOCAB, WIDTH)
    index = random_index(head, SIZE)
    tables = replace(write_tables(tmp_path, head, index, PROBES), num_probes=MOST_PROBES + 1)
    with pytest.raises(OptionError, match="cannot open this many") as caught:
        write_tensorrt_head(tmp_path, tables, index, TensorRtOptions(), name=NAME)
    assert caught.value.found == MOST_PROBES + 1
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"table": (1 << 20, 32, 64), "num_clusters": 1 << 20}, "The table has"),
        ({"batch": 1000}, "The clusters opened for a batch of 1000 have"),
        ({"batch": 70000, "num_probes": 1}, "The centroids times a batch of 70000 have"),
    ],
)
def test_tensors_that_are_too_large(sizes: dict[str, Any], message: str) -> None:
    fits: dict[str, Any] = {"num_probes": 100, "num_clusters": 1000, "table": (1000, 32, 1024), "batch": 8}
    check_limits(**fits)
    if "num_probes" in sizes:
        sizes = sizes | {"table": (1000, 1, 1024)}
    with pytest.raises(OptionError, match=message) as caught:
        check_limits(**(fits | sizes))
    assert isinstance(caught.value.found, int)
    assert caught.value.found > MOST_NUMBERS
