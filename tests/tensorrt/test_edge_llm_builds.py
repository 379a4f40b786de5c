"""The head as it stands in a graph of TensorRT Edge-LLM: TensorRT takes its operators in that graph's opset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from flashhead_edge.export.edge_llm import splice_head
from flashhead_edge.export.graph_files import load_graph, save_graph
from flashhead_edge.manifest import BatchProfile
from tests.tiny_edge_llm import OPSET, write_edge_llm
from tests.tiny_engines import VOCAB, WIDTH, engine_bundle
from tests.tiny_heads import random_head

pytestmark = pytest.mark.tensorrt

TARGETS = ("SM80", "SM86", "SM89", "SM120")


def head_alone(model: Path) -> Path:
    """From the states on: nobody but Edge-LLM has the attention's plugin."""
    graph = load_graph(model).graph
    first = next(i for i, node in enumerate(graph.node) if node.name == "/head/states/Cast")
    nodes = list(graph.node)[first:]
    nodes[0].input[0] = "hidden_states"
    used = {name for node in nodes for name in node.input}
    states = onnx.helper.make_tensor_value_info("hidden_states", onnx.TensorProto.FLOAT16, ["n", WIDTH])
    logits = [value for value in graph.output if value.name == "logits"]
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    alone = onnx.helper.make_graph(nodes, "head", [states], logits, weights)
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    save_graph(onnx.helper.make_model(alone, opset_imports=opsets, ir_version=10), model.with_name("alone.onnx"))
    return model.with_name("alone.onnx")


@pytest.mark.parametrize("precisions", [("int8", "fp16"), ("int8", "int8"), ("fp8", "fp8")], ids="-".join)
def test_it_builds(tmp_path: Path, build: Any, precisions: Any) -> None:
    """Scratch memory has room for the logits of all tokens, and for no copy of the opened rows."""
    options = {"centroid_precision": precisions[0], "cluster_precision": precisions[1]}
    bundle = engine_bundle(tmp_path / "bundle", probes=60, **options)
    export = write_edge_llm(tmp_path / "export", random_head(VOCAB, WIDTH))
    graph = head_alone(splice_head(export, bundle, tmp_path / "out").model)
    for target in TARGETS[2:] if "fp8" in precisions else TARGETS:
        built = build(graph, target, BatchProfile(1, 1, 8))
        assert built.plan, built.said[-2000:]
        assert built.scratch <= 8 * 3 * VOCAB * 4
