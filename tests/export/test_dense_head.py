"""Dense heads in ONNX Runtime: their logits, ties, and the names that joining a body relies on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from tiny_heads import dense_logits, random_head, random_states

from flashhead_edge.errors import OptionError
from flashhead_edge.export.dense_head import write_dense_head
from flashhead_edge.export.graph_files import check_graph
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.runtimes.session import open_session


def run(path, states):
    tokens, logits = open_session(path).run(["token_ids", "candidate_logits"], {"hidden_states": states})
    return tokens, logits


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize(
    "options", [{}, {"bias": True, "logit_scale": 0.25}, {"logit_softcap": 5.0}], ids=["plain", "bias", "softcap"]
)
def test_logits_are_those_of_the_rounded_rows(tmp_path, precision, options):
    head = random_head(100, 48, **options)
    path = write_dense_head(head, precision, tmp_path, "dense.onnx")
    assert path == tmp_path / "dense.onnx"
    states = random_states(5, 48)
    tokens, logits = run(path, states)
    if precision != "fp32":
        head = replace(head, rows=quantize_rows(head.rows, 8 if precision == "int8" else 4).dequantize())
    # MatMulNBits rounds the state to int8 too, at accuracy level 4.
    tolerance = 1e-5 if precision == "fp32" else 0.15
    np.testing.assert_allclose(logits, dense_logits(head, states), atol=tolerance)
    assert tokens.dtype == np.int64
    np.testing.assert_array_equal(tokens, logits.argmax(axis=1))


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_the_lowest_of_equal_ids_wins(tmp_path, precision):
    head = random_head(64, 32)
    head.rows[[9, 17, 40]] = head.rows[9] * 20
    path = write_dense_head(head, precision, tmp_path, "dense.onnx")
    tokens, _ = run(path, head.rows[[9, 17]])
    assert tokens.tolist() == [9, 9]


def test_the_graph_is_valid_and_named_by_place(tmp_path):
    write_dense_head(random_head(64, 32, bias=True), "int8", tmp_path, "dense.onnx")
    check_graph(tmp_path / "dense.onnx")
    graph = onnx.load(tmp_path / "dense.onnx", load_external_data=False).graph
    assert {"/head/logits/MatMul", "/head/greedy/ArgMax"} <= {node.name for node in graph.node}
    assert all(node.name.startswith("/head/") for node in graph.node)
    assert all(tensor.name.startswith(("/head/", "head.")) for tensor in graph.initializer)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dense.onnx", "dense.onnx.data"]


def test_rows_alone_are_a_head(tmp_path):
    head = random_head(64, 32)
    states = random_states(3, 32)
    _, logits = run(write_dense_head(head.rows, "fp32", tmp_path, "dense.onnx"), states)
    np.testing.assert_allclose(logits, dense_logits(head, states), atol=1e-5)


def test_an_unknown_precision_is_an_error(tmp_path):
    with pytest.raises(OptionError, match="int2"):
        write_dense_head(random_head(64, 32), "int2", tmp_path, "dense.onnx")
    assert not list(tmp_path.iterdir())
