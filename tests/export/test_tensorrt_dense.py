"""The dense head for TensorRT against the definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from flashhead_edge import layout
from flashhead_edge.errors import OptionError
from flashhead_edge.export.graph_files import check_graph, load_graph
from flashhead_edge.export.tensorrt_dense import DENSE_PRECISIONS, write_tensorrt_dense_head
from flashhead_edge.export.tensorrt_states import fit_int8_states
from flashhead_edge.lm_head import LmHead
from flashhead_edge.manifest import BatchProfile
from tests.tiny_heads import dense_logits, random_head, random_states

NAME = layout.TENSORRT_DENSE_GRAPH
#: Mean error of logits that spread by three units.
TOLERANCE = {"fp16": 0.002, "int8": 0.04, "int4": 0.5}


def run(folder: Path, head: LmHead, precision: Any, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    record = write_tensorrt_dense_head(
        folder, head, precision, name=NAME, max_batch=4, int8_states=fit_int8_states(states, head.rows)
    )
    assert (record.form, record.centroid_precision, record.cluster_precision) == ("matmul", None, precision)
    assert (record.batch, record.weights) == (BatchProfile(1, 1, 4), {})
    check_graph(folder / NAME)
    tokens, logits = onnxruntime.InferenceSession(folder / NAME).run(None, {"hidden_states": states})
    return tokens, logits


@pytest.mark.parametrize("precision", DENSE_PRECISIONS)
@pytest.mark.parametrize("features", [{}, {"bias": True, "logit_scale": 0.5, "logit_softcap": 4.0}])
def test_logits_are_the_definitions_to_the_precision(tmp_path: Path, precision: str, features: dict[str, Any]) -> None:
    head = random_head(500, 128, **features)
    states = random_states(6, 128)
    tokens, logits = run(tmp_path, head, precision, states)
    expected = dense_logits(head, states)
    assert logits.shape == (6, 500)
    assert np.abs(logits - expected).mean() < TOLERANCE[precision]
    np.testing.assert_array_equal(tokens, logits.argmax(axis=1))


@pytest.mark.parametrize("precision", DENSE_PRECISIONS)
def test_a_tie_is_the_lowest_id_s(tmp_path: Path, precision: str) -> None:
    head = random_head(100, 64)
    head.rows[:] = head.rows[0]
    tokens, logits = run(tmp_path, head, precision, random_states(3, 64))
    assert (logits == logits[:, :1]).all()
    np.testing.assert_array_equal(tokens, 0)


@pytest.mark.parametrize(("precision", "opset"), [("fp16", 17), ("int8", 17), ("int4", 21)])
def test_operators_that_tensorrt_has(tmp_path: Path, precision: str, opset: int) -> None:
    run(tmp_path, random_head(100, 64), precision, random_states(1, 64))
    model = load_graph(tmp_path / NAME)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Gemm") == 1
    assert ("QuantizeLinear" in kinds) == (precision == "int8")  # the state is rounded too
    assert model.opset_import[0].version == opset


def test_no_such_precision(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="did you mean 'int8'"):
        write_tensorrt_dense_head(tmp_path, random_head(100, 64), "uint8", name=NAME)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
