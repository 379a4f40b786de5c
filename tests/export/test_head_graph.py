"""The head graphs: their contract, and what the dense one computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.export.graph_files import check_graph
from flashhead_edge.export.head_graph import HEAD_OUTPUTS, gpu_head_graph, two_stage_graph
from flashhead_edge.runtimes.base import HeadOutput, HeadShape
from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
from tests.tiny_heads import (
    by_token,
    dense_logits,
    head_bundle,
    random_head,
    random_index,
    random_states,
    rounded,
    write_tables,
)

VOCAB, WIDTH, SIZE = 101, 48, 7
CLUSTERS = -(-VOCAB // SIZE)
ALWAYS = (1, 50)
PRECISIONS = [("fp32", "float32"), ("int8", "float16"), ("int4", "float16")]


def bundle_of(
    folder: Path, *, centroids: str = "fp32", rows: str = "float32", always: tuple[int, ...] = ALWAYS, **features: Any
) -> Bundle:
    head = random_head(VOCAB, WIDTH, **features)
    return head_bundle(folder, head, random_index(head, SIZE, always=always), 3, centroids=centroids, rows=rows)


def dense_head(bundle: Bundle) -> OnnxRuntimeHead:
    return OnnxRuntimeHead(bundle.file(layout.DENSE_GRAPH), HeadShape.of_bundle(bundle.manifest), threads=1)


def shapes(values: Any) -> dict[str, list[int | str]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


@pytest.mark.parametrize(("centroids", "rows"), PRECISIONS)
@pytest.mark.parametrize(
    "features", [{}, {"bias": True, "logit_scale": 0.5, "logit_softcap": 30.0}], ids=["plain", "all"]
)
@pytest.mark.parametrize("always", [ALWAYS, ()], ids=["always", "none always"])
@pytest.mark.parametrize("graph", [layout.HEAD_GRAPH, layout.DENSE_GRAPH])
def test_graphs_keep_the_contract(
    tmp_path: Path, centroids: str, rows: str, features: dict[str, Any], always: tuple[int, ...], graph: str
) -> None:
    bundle = bundle_of(tmp_path / "b", centroids=centroids, rows=rows, always=always, **features)
    check_graph(bundle.file(graph))
    model = onnx.load(bundle.file(graph), load_external_data=False)
    assert model.ir_version == 10
    domains = {entry.domain: entry.version for entry in model.opset_import}
    assert domains == {"": 21} | ({} if centroids == "fp32" else {"com.microsoft": 1})
    assert {node.domain for node in model.graph.node} == set(domains)
    nodes = {node.name: node.op_type for node in model.graph.node}
    assert len(nodes) == len(model.graph.node)
    assert nodes["/head/centroids/MatMul"] == ("MatMul" if centroids == "fp32" else "MatMulNBits")
    assert "/head/logits/MatMul" in nodes
    if graph == layout.HEAD_GRAPH:
        assert nodes["/head/select/TopK"] == "TopK"
        assert nodes["/head/clusters/Gather"] == "Gather"
    table = SIZE * (CLUSTERS + (1 if always else 0))
    candidates = table if graph == layout.DENSE_GRAPH else SIZE * (3 + (1 if always else 0))
    assert shapes(model.graph.input) == {"hidden_states": ["batch", WIDTH]}
    assert shapes(model.graph.output) == {
        "token_ids": ["batch"],
        "candidate_ids": ["batch", candidates],
        "candidate_logits": ["batch", candidates],
        "cluster_scores": ["batch", CLUSTERS],
    }
    assert [output.name for output in model.graph.output] == list(HEAD_OUTPUTS) == list(HeadOutput._fields)


def test_the_contract_holds_what_onnx_runtime_sees(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "b")
    session = ort.InferenceSession(bundle.file(layout.HEAD_GRAPH), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type) for i in session.get_inputs()] == [("hidden_states", "tensor(float)")]
    assert [o.type for o in session.get_outputs()] == [
        "tensor(int64)",
        "tensor(int64)",
        "tensor(float)",
        "tensor(float)",
    ]


@pytest.mark.parametrize("graph", [layout.HEAD_GRAPH, layout.DENSE_GRAPH])
def test_large_tensors_lie_in_the_shared_data_file(tmp_path: Path, graph: str) -> None:
    bundle = bundle_of(tmp_path / "b", bias=True)
    model = onnx.load(bundle.file(graph), load_external_data=False)
    external = {i.name: i for i in model.graph.initializer if i.data_location == onnx.TensorProto.EXTERNAL}
    assert {layout.ROWS, layout.ROW_BIAS, layout.TOKEN_ORDER, "head.centroids"} <= set(external)
    locations = {entry.value for i in external.values() for entry in i.external_data if entry.key == "location"}
    assert locations == {layout.HEAD_DATA}
    inline = [i for i in model.graph.initializer if i.name not in external]
    assert sum(i.ByteSize() for i in inline) < 2000
    facts = {entry.key: int(entry.value) for entry in external[layout.ROWS].external_data if entry.key != "location"}
    record = bundle.manifest.tables[layout.ROWS]
    assert (facts["offset"], facts["length"]) == (record.offset, record.length)


@pytest.mark.parametrize(("centroids", "rows"), PRECISIONS)
@pytest.mark.parametrize(
    "features",
    [{}, {"bias": True}, {"logit_scale": 2.0}, {"bias": True, "logit_scale": 2.0, "logit_softcap": 25.0}],
    ids=["plain", "bias", "scale", "all"],
)
def test_the_dense_graph_is_the_dense_head(tmp_path: Path, centroids: str, rows: str, features: dict[str, Any]) -> None:
    bundle = bundle_of(tmp_path / "b", centroids=centroids, rows=rows, **features)
    states = random_states(16, WIDTH)
    dense = dense_logits(rounded(random_head(VOCAB, WIDTH, **features), rows), states)
    runtime = dense_head(bundle)
    for batch in (1, 2, 16):
        output = runtime.run(states[:batch])
        logits = by_token(output.candidate_ids, output.candidate_logits, VOCAB)
        np.testing.assert_allclose(logits, dense[:batch], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(output.token_ids, dense[:batch].argmax(axis=1))
        np.testing.assert_array_equal(np.isneginf(output.candidate_logits), output.candidate_ids < 0)


def test_both_graphs_agree_on_cluster_scores(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "b", centroids="int8", bias=True, logit_softcap=9.0)
    states = random_states(4, WIDTH)
    two_stage = OnnxRuntimeHead.from_bundle(bundle).run(states)
    np.testing.assert_allclose(dense_head(bundle).run(states).cluster_scores, two_stage.cluster_scores, rtol=1e-5)


def test_dense_ties_go_to_the_lowest_id_and_padding_never_wins(tmp_path: Path) -> None:
    head = random_head(VOCAB, WIDTH, bias=True)
    head.bias[:] = -1e30  # type: ignore[index]  # swallows every product: all tokens tie
    bundle = head_bundle(tmp_path / "b", head, random_index(head, SIZE, always=ALWAYS), 3)
    output = dense_head(bundle).run(random_states(3, WIDTH))
    assert output.token_ids.tolist() == [0, 0, 0]


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vocab=st.integers(2, 300),
    width=st.sampled_from(range(8, 65, 8)),
    size=st.integers(1, 9),
    batch=st.integers(1, 16),
    rows=st.sampled_from(["float32", "float16"]),
)
def test_the_dense_graph_at_any_shape(tmp_path: Path, vocab: int, width: int, size: int, batch: int, rows: str) -> None:
    head = random_head(vocab, width, seed=vocab)
    index = random_index(head, size, always=(0, vocab - 1))
    bundle = head_bundle(tmp_path / str(len(list(tmp_path.iterdir()))), head, index, 1, rows=rows)
    states = random_states(batch, width)
    output = dense_head(bundle).run(states)
    np.testing.assert_allclose(
        by_token(output.candidate_ids, output.candidate_logits, vocab),
        dense_logits(rounded(head, rows), states),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_gpu_gets_all_rows_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashhead_edge.export.head_graph._PIECE_BYTES", SIZE * WIDTH * 4)
    head = random_head(VOCAB, WIDTH)
    index = random_index(head, SIZE, always=ALWAYS)
    tables = write_tables(tmp_path, head, index, 3, centroids="int8", rows="float16")
    outputs = []
    for name, graph in (("whole", gpu_head_graph(tables)), ("pieces", two_stage_graph(tables))):
        gathers = [node.name for node in graph.graph.node if node.name.startswith("/head/clusters.1")]
        assert bool(gathers) == (name == "pieces")
        onnx.save(graph, tmp_path / f"{name}.onnx")
        session = ort.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        outputs.append(session.run(list(HEAD_OUTPUTS), {"hidden_states": random_states(5, WIDTH)}))
    for mine, theirs in zip(*outputs, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)


@pytest.mark.parametrize("rows", ["float32", "float16"])
def test_pieces_of_stage_two_change_nothing(rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = OnnxRuntimeHead.from_bundle(bundle_of(tmp_path / "whole", rows=rows), threads=1)
    monkeypatch.setattr("flashhead_edge.export.head_graph._PIECE_BYTES", SIZE * WIDTH * 4)
    bundle = bundle_of(tmp_path / "pieces", rows=rows)
    names = [node.name for node in onnx.load(bundle.file(layout.HEAD_GRAPH), load_external_data=False).graph.node]
    assert "/head/clusters/Gather" in names
    assert "/head/clusters.3/Gather" in names  # P = 3 and an always-scored cluster: four pieces
    assert "/head/clusters.4/Gather" not in names
    states = random_states(5, WIDTH)
    one, other = whole.run(states), OnnxRuntimeHead.from_bundle(bundle, threads=1).run(states)
    np.testing.assert_array_equal(one.token_ids, other.token_ids)
    for row in range(len(states)):
        mine = dict(zip(one.candidate_ids[row].tolist(), one.candidate_logits[row].tolist(), strict=True))
        theirs = dict(zip(other.candidate_ids[row].tolist(), other.candidate_logits[row].tolist(), strict=True))
        assert mine == pytest.approx(theirs, rel=1e-5)
