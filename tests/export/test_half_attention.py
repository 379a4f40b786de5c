"""Attention in half precision, run on the CPU, which has ONNX Runtime's operator in both precisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny_bodies import HIDDEN, empty_cache, save_tiny_model, session, step

from flashhead_edge import layout
from flashhead_edge.export.body import BodyInfo, export_body
from flashhead_edge.export.graph_files import check_graph
from flashhead_edge.export.half_attention import use_half_attention

KINDS = ["llama", "llama3-rope", "qwen3", "gemma3", "gemma2", "granite", "phi3"]


@pytest.fixture(scope="module", params=KINDS)
def bodies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BodyInfo]:
    source, folder = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("bundle")
    save_tiny_model(request.param, source)
    info = export_body(source, folder, precision="fp32")
    model = onnx.load(folder / layout.BODY_GRAPH, load_external_data=False)
    use_half_attention(model)
    onnx.save(model, folder / "half.onnx")
    return folder, info


def test_states_are_nearly_the_same_at_every_step(bodies: tuple[Path, BodyInfo]) -> None:
    folder, info = bodies
    embeds = np.random.default_rng(0).normal(size=(1, 18, HIDDEN)).astype(np.float32)
    runs = [session(folder / name) for name in (layout.BODY_GRAPH, "half.onnx")]
    caches = [empty_cache(info), {name: value.astype(np.float16) for name, value in empty_cache(info).items()}]
    for start, stop in [(0, 8), *((i, i + 1) for i in range(8, 18))]:
        feed = {"inputs_embeds": embeds[:, start:stop], "attention_mask": np.ones((1, stop), np.int64)}
        found = []
        for place, run in enumerate(runs):
            (states,), caches[place] = step(run, info, caches[place], ["hidden_states"], **feed)
            found.append(states)
        assert found[1].dtype == np.float32
        assert np.abs(found[0] - found[1]).max() < 0.02 * np.abs(found[0]).max()
    assert {value.dtype for value in caches[1].values()} == {np.dtype(np.float16)}


def test_only_attention_is_changed(bodies: tuple[Path, BodyInfo]) -> None:
    whole, half = (onnx.load(bodies[0] / name, load_external_data=False) for name in (layout.BODY_GRAPH, "half.onnx"))
    added = [node for node in half.graph.node if node.name not in {node.name for node in whole.graph.node}]
    assert {node.op_type for node in added} == {"Cast"}
    assert half.graph.initializer == whole.graph.initializer
    others = [[n for n in m.graph.node if n.op_type not in ("Cast", "GroupQueryAttention")] for m in (whole, half)]
    assert others[0] == others[1]
    check_graph(bodies[0] / "half.onnx")


def test_what_is_half_stays(bodies: tuple[Path, BodyInfo]) -> None:
    model = onnx.load(bodies[0] / "half.onnx", load_external_data=False)
    before = model.SerializeToString(deterministic=True)
    use_half_attention(model)
    assert model.SerializeToString(deterministic=True) == before


def test_a_table_is_cast_once(bodies: tuple[Path, BodyInfo]) -> None:
    model = onnx.load(bodies[0] / "half.onnx", load_external_data=False)
    tables = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    casts = [node.input[0] for node in model.graph.node if node.op_type == "Cast" and node.input[0] in tables]
    assert len(casts) == len(set(casts)) > 0
