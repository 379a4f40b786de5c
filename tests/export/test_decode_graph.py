"""Embedding, body and head in one graph, compared with Transformers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_bodies import HIDDEN, VOCAB, empty_cache, save_tiny_model, session, step

from flashhead_edge.errors import ExportError
from flashhead_edge.export.body import BodyInfo, export_body
from flashhead_edge.export.decode_graph import write_decode_graph
from flashhead_edge.export.embedding_graph import EmbeddingTable
from flashhead_edge.export.stored_rows import StoredRows
from flashhead_edge.export.tensor_ref import DataFile, TensorRef

SIZE = 5
TOTAL = -(-VOCAB // SIZE) + 1
OUTPUTS = ["token_ids", "candidate_ids", "candidate_logits", "cluster_scores", "hidden_states"]


class Decoder(NamedTuple):
    model: torch.nn.Module
    folder: Path
    info: BodyInfo
    embedding: EmbeddingTable


def dense_head(rows: TensorRef, order: TensorRef) -> onnx.ModelProto:
    """A head that scores every slot: the contract's outputs without its speed."""
    value, node, slots = helper.make_tensor_value_info, helper.make_node, TOTAL * SIZE
    constants = {
        "/head/flat": np.array([slots, HIDDEN]),
        "/head/one": np.array([1, slots]),
        "/head/zero": np.array(0, np.int32),
        "/head/lowest": np.array(-np.inf, np.float32),
        "/head/means": np.ones((HIDDEN, TOTAL), np.float32),
    }
    nodes = [
        node("Cast", ["head.rows"], ["/head/wide"], to=TensorProto.FLOAT),
        node("Reshape", ["/head/wide", "/head/flat"], ["/head/rows"]),
        node("Transpose", ["/head/rows"], ["/head/columns"], perm=[1, 0]),
        node("MatMul", ["hidden_states", "/head/columns"], ["/head/products"], name="/head/logits/MatMul"),
        node("Reshape", ["head.token_order", "/head/one"], ["/head/ids"]),
        node("Less", ["/head/ids", "/head/zero"], ["/head/padding"]),
        node("Where", ["/head/padding", "/head/lowest", "/head/products"], ["candidate_logits"]),
        node("Shape", ["/head/products"], ["/head/shape"]),
        node("Expand", ["/head/ids", "/head/shape"], ["/head/all"]),
        node("Cast", ["/head/all"], ["candidate_ids"], to=TensorProto.INT64),
        node("ArgMax", ["candidate_logits"], ["/head/best"], axis=1, keepdims=1),
        node("GatherElements", ["candidate_ids", "/head/best"], ["/head/token"], axis=1),
        node("Squeeze", ["/head/token"], ["token_ids"]),
        node("MatMul", ["hidden_states", "/head/means"], ["cluster_scores"]),
    ]
    nodes[-2].input.append("/head/axis")
    constants["/head/axis"] = np.array([1])
    graph = helper.make_graph(
        nodes,
        "head",
        [value("hidden_states", TensorProto.FLOAT, ["batch", HIDDEN])],
        [
            value("token_ids", TensorProto.INT64, ["batch"]),
            value("candidate_ids", TensorProto.INT64, ["batch", slots]),
            value("candidate_logits", TensorProto.FLOAT, ["batch", slots]),
            value("cluster_scores", TensorProto.FLOAT, ["batch", TOTAL]),
        ],
        [rows.to_proto(), order.to_proto(), *(numpy_helper.from_array(v, k) for k, v in constants.items())],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10, producer_name="test")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Decoder]:
    done: dict[str, Decoder] = {}

    def make(kind: str) -> Decoder:
        source, folder = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("bundle")
        model = save_tiny_model(kind, source)
        info = export_body(source, folder, precision="fp32")
        order = np.full(TOTAL * SIZE, -1, np.int32)
        slots = np.random.default_rng(0).permutation(TOTAL * SIZE)[:VOCAB].astype(np.int32)
        order[slots] = np.arange(VOCAB)
        # float16 rows: rounded in the model too, so that both compute with the same numbers.
        with torch.no_grad():
            for weight in {model.lm_head.weight, model.get_input_embeddings().weight}:
                weight.copy_(weight.half().float())
        rows = np.zeros((TOTAL * SIZE, HIDDEN), np.float16)
        rows[slots] = model.lm_head.weight.detach().numpy()
        with DataFile(folder / "head.onnx.data") as data:
            table = data.append("head.rows", rows.reshape(TOTAL, SIZE, HIDDEN))
            ids = data.append("head.token_order", order.reshape(TOTAL, SIZE))
            slot_of_token = data.append("head.slot_of_token", slots)
        onnx.save(dense_head(table, ids), folder / "head.onnx")
        if model.config.tie_word_embeddings:
            scale = HIDDEN**0.5 if kind.startswith("gemma") else 1.0
            embedding = EmbeddingTable(StoredRows(table), slot_of_token, scale)
        else:
            with DataFile(folder / "embedding.onnx.data") as data:
                weight = model.get_input_embeddings().weight.detach().numpy().astype(np.float16)
                embedding = EmbeddingTable(StoredRows(data.append("embedding.rows", weight)))
        write_decode_graph(folder, embedding=embedding)
        return Decoder(model, folder, info, embedding)

    def made(kind: str) -> Decoder:
        if kind not in done:
            done[kind] = make(kind)
        return done[kind]

    return made


def logits_by_token(outputs: list[np.ndarray]) -> np.ndarray:
    """Candidate logits [B, V] in the order of the vocabulary."""
    _, ids, logits, *_ = outputs
    assert np.isneginf(logits[ids < 0]).all()
    found = np.empty((len(ids), VOCAB), np.float32)
    for row in range(len(ids)):
        found[row, ids[row][ids[row] >= 0]] = logits[row][ids[row] >= 0]
    return found


@pytest.mark.parametrize("kind", ["llama", "llama-untied", "qwen3", "gemma3"])
def test_every_step_equals_transformers(decoder: Callable[[str], Decoder], kind: str) -> None:
    model, folder, info, _ = decoder(kind)
    ids = torch.randint(3, VOCAB, (1, 18), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0].numpy()
    run, cache = session(folder / "decode.onnx"), empty_cache(info)
    for start, stop in [(0, 8), (8, 13), *((i, i + 1) for i in range(13, 18))]:
        feed = {"input_ids": ids[:, start:stop].numpy(), "attention_mask": np.ones((1, stop), np.int64)}
        feed["scored_positions"] = np.array([[0, stop - start - 1]])
        outputs, cache = step(run, info, cache, OUTPUTS, **feed)
        np.testing.assert_allclose(logits_by_token(outputs)[0], expected[stop - 1], atol=1e-3)
        assert outputs[0].tolist() == [int(expected[stop - 1].argmax())]


def test_batches_are_ragged_on_the_right(decoder: Callable[[str], Decoder]) -> None:
    model, folder, info, _ = decoder("gemma3")
    lengths = [7, 12, 1]
    rows = [
        torch.randint(3, VOCAB, (1, length + 2), generator=torch.Generator().manual_seed(length)) for length in lengths
    ]
    with torch.no_grad():
        expected = [model(input_ids=row).logits[0].numpy() for row in rows]
    ids, last = np.zeros((3, 12), np.int64), np.array(lengths) - 1
    for i, row in enumerate(rows):
        ids[i, : lengths[i]] = row[0, : lengths[i]]
    run, cache = session(folder / "decode.onnx"), empty_cache(info, batch=3)
    for extra in range(3):
        if extra:
            ids = np.array([[row[0, length + extra - 1]] for row, length in zip(rows, lengths, strict=True)])
            last = np.zeros(3, np.int64)
        scored = np.stack([np.arange(3), last], axis=1)
        mask = (np.arange(12 + extra) < np.array(lengths)[:, None] + extra).astype(np.int64)
        outputs, cache = step(run, info, cache, OUTPUTS, input_ids=ids, attention_mask=mask, scored_positions=scored)
        for i, found in enumerate(logits_by_token(outputs)):
            np.testing.assert_allclose(found, expected[i][lengths[i] + extra - 1], atol=1e-3)


def test_graph_is_valid_and_holds_no_weights(decoder: Callable[[str], Decoder]) -> None:
    _, folder, info, _ = decoder("gemma3")
    path = folder / "decode.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    assert path.stat().st_size < 150_000
    model = onnx.load(path, load_external_data=False)
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    assert opsets == {"": 22, "com.microsoft": 1}
    assert [value.name for value in model.graph.output][: len(OUTPUTS)] == OUTPUTS
    assert set(info.present_key_names) < {value.name for value in model.graph.output}
    names = {value.name for value in model.graph.input}
    assert names == {"input_ids", "attention_mask", "scored_positions", *info.past_key_names, *info.past_value_names}
    places = {node.name.split("/")[1] for node in model.graph.node if node.name}
    assert places == {"embedding", "model", "scored", "head"}
    locations = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    assert locations == {"body.onnx.data", "head.onnx.data"}


def test_tied_table_is_referred_to_once(decoder: Callable[[str], Decoder]) -> None:
    model = onnx.load(decoder("llama").folder / "decode.onnx", load_external_data=False)
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == len(set(names))
    assert {"head.rows", "head.slot_of_token"} <= set(names)


class TestRefusals:
    @pytest.fixture
    def parts(self, decoder: Callable[[str], Decoder], tmp_path: Path) -> tuple[Path, EmbeddingTable]:
        _, folder, _, embedding = decoder("llama")
        for path in folder.iterdir():
            if path.name != "decode.onnx":
                shutil.copy(path, tmp_path)
        return tmp_path, embedding

    @staticmethod
    def change_head(folder: Path, change: Callable[[onnx.ModelProto], object]) -> None:
        model = onnx.load(folder / "head.onnx", load_external_data=False)
        change(model)
        onnx.save(model, folder / "other.onnx")

    def expect(self, folder: Path, embedding: EmbeddingTable, message: str) -> None:
        with pytest.raises(ExportError, match=message):
            write_decode_graph(folder, embedding=embedding, head_graph="other.onnx")
        assert not (folder / "decode.onnx").exists()
        assert not list(folder.glob(".*"))

    def test_value_of_the_same_name(self, parts: tuple[Path, EmbeddingTable]) -> None:
        folder, embedding = parts
        clash = "/model/layers.0/attn/qkv_proj/MatMul/output_0"
        self.change_head(
            folder, lambda m: m.graph.node.append(helper.make_node("Identity", ["hidden_states"], [clash]))
        )
        self.expect(folder, embedding, "both have a value named")

    def test_other_tensor_of_the_same_name(self, parts: tuple[Path, EmbeddingTable]) -> None:
        folder, embedding = parts
        moved = StoredRows(replace(embedding.table.data, offset=4096))
        self.change_head(folder, lambda _: None)
        self.expect(folder, EmbeddingTable(moved, embedding.slot_of_token), "Two different tensors")

    def test_other_hidden_size(self, parts: tuple[Path, EmbeddingTable]) -> None:
        folder, embedding = parts

        def widen(model: onnx.ModelProto) -> None:
            model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = HIDDEN + 1

        self.change_head(folder, widen)
        self.expect(folder, embedding, "different hidden sizes")

    def test_table_without_slots(self, parts: tuple[Path, EmbeddingTable]) -> None:
        folder, embedding = parts
        self.change_head(folder, lambda _: None)
        self.expect(folder, EmbeddingTable(embedding.table), "wrong rank")

    def test_head_without_its_input(self, parts: tuple[Path, EmbeddingTable]) -> None:
        folder, embedding = parts
        self.change_head(folder, lambda m: setattr(m.graph.input[0], "name", "states"))
        self.expect(folder, embedding, "lacks 'hidden_states'")

    def test_op_that_changed_between_opsets(self, parts: tuple[Path, EmbeddingTable]) -> None:
        folder, embedding = parts

        def age(model: onnx.ModelProto) -> None:
            model.opset_import[0].version = 12

        self.change_head(folder, age)
        self.expect(folder, embedding, "changed between the opsets")

    def test_invalid_result_is_not_left_behind(self, parts: tuple[Path, EmbeddingTable]) -> None:
        folder, embedding = parts
        self.change_head(folder, lambda m: m.graph.node.append(helper.make_node("Relu", ["nowhere"], ["/head/x"])))
        self.expect(folder, embedding, "(?s)not valid ONNX.*nowhere")
