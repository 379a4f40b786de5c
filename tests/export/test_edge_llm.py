"""The head in graphs of TensorRT Edge-LLM's exporter, as ONNX Runtime runs them with a stand-in for the attention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.cli import main
from flashhead_edge.errors import OptionError
from flashhead_edge.export.edge_llm import GAP, splice_head
from flashhead_edge.export.graph_files import load_graph
from flashhead_edge.lm_head import LmHead
from flashhead_edge.runtimes.base import HeadOutput, HeadShape
from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
from flashhead_edge.runtimes.reference import ReferenceHead
from tests.tiny_edge_llm import LM_HEAD, feeds, with_attention, write_edge_llm
from tests.tiny_engines import PROBES, SIZE, VOCAB, WIDTH, engine_bundle
from tests.tiny_heads import dense_logits, random_head, rounded

ALL = -(-VOCAB // SIZE)
HEAD = random_head(VOCAB, WIDTH)
POSITIONS = [4, 9, 10, 30, 31]


def run(model: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, V] and the states that they come from [n, H] float32."""
    graph = with_attention(model)
    loaded = load_graph(graph)
    loaded.graph.output.append(onnx.helper.make_tensor_value_info("index_select", 10, ["n", WIDTH]))
    graph.write_bytes(loaded.SerializeToString())
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    given = feeds(WIDTH, tokens=32, logits_indices=POSITIONS)
    logits, states = session.run(["logits", "index_select"], given)
    return logits, states.astype(np.float32)


def estimates(bundle: Bundle, output: HeadOutput) -> np.ndarray:
    """What every token has that is no candidate, [n, V]."""
    index = bundle.index()
    cluster = index.slot_of_token // index.cluster_size
    scores = output.cluster_scores[:, np.minimum(cluster, index.num_clusters - 1)]
    return np.minimum(scores, output.candidate_logits.max(axis=1, keepdims=True) - np.float32(GAP))


def logits_of(bundle: Bundle, output: HeadOutput) -> np.ndarray:
    """The definition: candidates' logits, and estimates elsewhere, [n, V]."""
    logits = estimates(bundle, output)
    row, place = np.nonzero(output.candidate_ids >= 0)
    logits[row, output.candidate_ids[row, place]] = output.candidate_logits[row, place]
    return logits


def test_with_every_cluster_open_it_is_the_dense_head(tmp_path: Path) -> None:
    export = write_edge_llm(tmp_path / "export", HEAD)
    dense, states = run(export)
    spliced = splice_head(export, engine_bundle(tmp_path / "bundle", probes=ALL), tmp_path / "out").model
    logits, same_states = run(spliced)
    np.testing.assert_array_equal(states, same_states)
    np.testing.assert_allclose(logits, dense_logits(rounded(HEAD, "float16"), states), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, dense, rtol=2e-3, atol=5e-3)  # the exporter rounds logits to float16
    assert (logits.shape, logits.dtype) == ((len(POSITIONS), VOCAB), np.float32)


def test_greedy_tokens_are_those_of_the_reference(tmp_path: Path) -> None:
    bundle = engine_bundle(tmp_path / "bundle", centroid_precision="fp32")
    spliced = splice_head(write_edge_llm(tmp_path / "export", HEAD), bundle, tmp_path / "out")
    logits, states = run(spliced.model)
    output = ReferenceHead.from_bundle(bundle).run(states)
    np.testing.assert_array_equal(logits.argmax(axis=1), output.token_ids)
    np.testing.assert_allclose(logits, logits_of(bundle, output), rtol=1e-4, atol=1e-4)
    assert (spliced.num_probes, spliced.vocab_size, spliced.hidden_size) == (PROBES, VOCAB, WIDTH)


@pytest.mark.parametrize("precisions", [("int8", "fp16"), ("int4", "int8"), ("fp8", "fp8")], ids="-".join)
def test_precisions_are_those_of_the_bundle(tmp_path: Path, precisions: Any) -> None:
    """Graphs of opsets 17, 19 and 21 say in opset 24 what they said."""
    bundle = engine_bundle(tmp_path / "bundle", centroid_precision=precisions[0], cluster_precision=precisions[1])
    logits, states = run(splice_head(write_edge_llm(tmp_path / "export", HEAD), bundle, tmp_path / "out").model)
    index = bundle.index()
    shape = HeadShape(VOCAB, WIDTH, ALL, SIZE, PROBES, index.num_candidates(PROBES))
    output = OnnxRuntimeHead(bundle.path / layout.TENSORRT_HEAD_GRAPH, shape).run(states)
    np.testing.assert_array_equal(logits.argmax(axis=1), output.token_ids)
    np.testing.assert_allclose(logits, logits_of(bundle, output), rtol=1e-5, atol=1e-5)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), probes=st.integers(1, ALL))
def test_any_index_and_any_probes(tmp_path_factory: Any, seed: int, probes: int) -> None:
    """Empty slots, wherever they are, change no token's logit, and estimates stay below the best candidate."""
    folder = tmp_path_factory.mktemp("any")
    bundle = engine_bundle(folder / "bundle", head=HEAD, seed=seed, probes=probes, centroid_precision="fp32")
    logits, states = run(splice_head(write_edge_llm(folder / "export", HEAD), bundle, folder / "out").model)
    output = ReferenceHead.from_bundle(bundle).run(states)
    np.testing.assert_allclose(logits, logits_of(bundle, output), rtol=1e-4, atol=1e-4)
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(logits.argmax(axis=1), output.token_ids)


def test_nothing_else_changes(tmp_path: Path) -> None:
    export = write_edge_llm(tmp_path / "export", HEAD)
    before = {file.name: file.read_bytes() for file in export.parent.iterdir()}
    spliced = splice_head(export, engine_bundle(tmp_path / "bundle"), tmp_path / "out").model
    old, new = load_graph(export), load_graph(spliced)
    for which in ("input", "output"):
        assert list(getattr(new.graph, which)) == list(getattr(old.graph, which))
    assert (new.opset_import, new.ir_version) == (old.opset_import, old.ir_version)
    assert not [tensor for tensor in new.graph.initializer if tensor.name == LM_HEAD]
    assert new.graph.node[:-1][: len(old.graph.node) - 3] == old.graph.node[:-3]
    beside = {file.name: file.read_bytes() for file in spliced.parent.iterdir()}
    assert set(beside) == {*before, layout.HEAD_DATA, f"{layout.TENSORRT_HEAD_GRAPH}.data"}
    assert {name: beside[name] for name in before if name != "model.onnx"} == {
        name: data for name, data in before.items() if name != "model.onnx"
    }
    assert {file.name: file.read_bytes() for file in export.parent.iterdir()} == before


def changed(export: Path, change: Any) -> Path:
    """The export with a change to its graph."""
    model = load_graph(export)
    change(model)
    export.write_bytes(model.SerializeToString())
    return export


def node_of(model: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == kind)


def quantize_weight(model: onnx.ModelProto) -> None:
    gemm = node_of(model, "Gemm")
    model.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", ["q", "s"], [gemm.input[1] + ".dq"]))
    gemm.input[1] += ".dq"


def weight_as_input(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == LM_HEAD)
    model.graph.input.append(onnx.helper.make_tensor_value_info(LM_HEAD, tensor.data_type, list(tensor.dims)))
    model.graph.initializer.remove(tensor)


def rename_logits(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "scores"


def show_products(model: onnx.ModelProto) -> None:
    model.graph.output.append(onnx.helper.make_tensor_value_info("linear_10", 10, ["n", VOCAB]))


def scale_products(model: onnx.ModelProto) -> None:
    next(entry for entry in node_of(model, "Gemm").attribute if entry.name == "alpha").f = 2.0


def other_opset(version: int) -> Any:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def take_a_name(model: onnx.ModelProto) -> None:
    model.graph.node.append(onnx.helper.make_node("Identity", ["inputs_embeds"], ["/head/states/Cast/output_0"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (take_a_name, "values with the head's names"),
        (quantize_weight, "(?s)come from DequantizeLinear.*not quantized"),
        (weight_as_input, "(?s)are the input.*--externalize-weights"),
        (rename_logits, "no output 'logits'"),
        (show_products, "used elsewhere"),
        (scale_products, "Gemm with"),
        (other_opset(26), "(?s)cannot be moved to the opset.*26"),
        (other_opset(16), "cannot be moved to the opset"),
    ],
)
def test_other_graphs_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    export = changed(write_edge_llm(tmp_path / "export", HEAD), change)
    bundle = engine_bundle(tmp_path / "bundle")
    with pytest.raises(OptionError, match=message) as caught:
        splice_head(export, bundle, tmp_path / "out")
    assert caught.value.found
    assert caught.value.expected or caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_softcap_in_the_graph_is_refused(tmp_path: Path) -> None:
    export = write_edge_llm(tmp_path / "export", HEAD, softcap=30.0)
    with pytest.raises(OptionError, match=r"(?s)plain dense head.*Mul - Reshape"):
        splice_head(export, engine_bundle(tmp_path / "bundle"), tmp_path / "out")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (random_head(VOCAB, WIDTH, seed=9), "other weights"),
        (random_head(VOCAB - 1, WIDTH), "(?s)another shape.*1000, 64"),
        (random_head(VOCAB, 2 * WIDTH), "another shape"),
    ],
)
def test_a_bundle_of_another_model_is_refused(tmp_path: Path, head: LmHead, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        splice_head(
            write_edge_llm(tmp_path / "export", HEAD), engine_bundle(tmp_path / "bundle", head=head), tmp_path / "out"
        )


@pytest.mark.parametrize("features", [{"bias": True}, {"logit_scale": 0.5}, {"logit_softcap": 8.0}])
def test_a_bundle_whose_head_does_more_is_refused(tmp_path: Path, features: dict[str, Any]) -> None:
    bundle = engine_bundle(tmp_path / "bundle", head=random_head(VOCAB, WIDTH, **features))
    with pytest.raises(OptionError, match="does more than the exported"):
        splice_head(write_edge_llm(tmp_path / "export", HEAD), bundle, tmp_path / "out")


def test_what_else_is_refused(tmp_path: Path) -> None:
    export = write_edge_llm(tmp_path / "export", HEAD)
    bundle = engine_bundle(tmp_path / "bundle")
    with pytest.raises(OptionError, match="is not a file"):
        splice_head(export.parent, bundle, tmp_path / "out")
    with pytest.raises(OptionError, match="--tensorrt-weight-inputs"):
        splice_head(export, engine_bundle(tmp_path / "inputs", weight_inputs=True), tmp_path / "out")
    del bundle.manifest.graphs["head_tensorrt"]
    with pytest.raises(OptionError, match="--target tensorrt"):
        splice_head(export, bundle, tmp_path / "out")
    bundle = Bundle.open(bundle.path)
    spliced = splice_head(export, bundle, tmp_path / "out").model
    with pytest.raises(OptionError, match="plain dense head"):
        splice_head(spliced, bundle, tmp_path / "again")
    with pytest.raises(OptionError, match="--force"):
        splice_head(export, bundle, tmp_path / "out")
    splice_head(export, bundle, tmp_path / "out", force=True)
    (export.parent / layout.HEAD_DATA).touch()
    with pytest.raises(OptionError, match="already has a file"):
        splice_head(export, bundle, tmp_path / "taken")
    assert not (tmp_path / "taken").exists()


def test_the_command(tmp_path: Path) -> None:
    export = write_edge_llm(tmp_path / "export", HEAD)
    bundle = engine_bundle(tmp_path / "bundle")
    arguments = ["splice", str(export), str(bundle.path), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    report = json.loads(result.stdout)
    assert report["model"] == str(tmp_path / "out" / "model.onnx")
    assert (report["num_probes"], report["vocab_size"]) == (PROBES, VOCAB)
    assert CliRunner().invoke(main, arguments).exit_code == 2
    assert "not tested on a device" in CliRunner().invoke(main, [*arguments, "--force"]).stdout
