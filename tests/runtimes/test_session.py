"""Opening sessions; what providers do is in test_decoder.py and test_onnxruntime.py."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from flashhead_edge.errors import BundleError, OptionalDependencyError, RuntimeUnavailableError
from flashhead_edge.runtimes.session import open_session


def save(path: Path, *, kind: str = "Neg", domain: str = "", opset: int = 21, ir_version: int = 10) -> Path:
    value = helper.make_tensor_value_info
    node = helper.make_node(kind, ["x"], ["y"], domain=domain)
    graph = helper.make_graph([node], "g", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])])
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), path)
    return path


def test_a_graph_opens(tmp_path: Path) -> None:
    session = open_session(save(tmp_path / "g.onnx"), threads=3)
    assert session.get_session_options().intra_op_num_threads == 3
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OptionalDependencyError, match=r"flashhead-edge\[cpu\]"):
        open_session(tmp_path / "g.onnx")


@pytest.mark.parametrize(
    "facts",
    [{"opset": 9999}, {"ir_version": 999}, {"kind": "NoSuchOperator"}, {"kind": "Neg", "domain": "no.such.domain"}],
    ids=["opset", "ir version", "operator", "domain"],
)
def test_a_graph_that_this_version_cannot_run_is_an_error(tmp_path: Path, facts: dict[str, object]) -> None:
    with pytest.raises((BundleError, RuntimeUnavailableError), match=r"g\.onnx") as caught:
        open_session(save(tmp_path / "g.onnx", **facts))
    assert "\n" not in str(caught.value.found)


def test_a_folder_is_no_graph(tmp_path: Path) -> None:
    with pytest.raises((BundleError, RuntimeUnavailableError)):
        open_session(tmp_path)
