"""A bundle built by hand: a random two-layer decoder in ONNX and a byte-level tokenizer, without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from flashhead_edge import layout
from flashhead_edge.bundle import hash_file
from flashhead_edge.export.tensor_ref import DataFile
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.index.storage import save_index
from flashhead_edge.manifest import (
    BodyRecord,
    CalibrationRecord,
    GraphRecord,
    IndexRecord,
    Manifest,
    QualityRecord,
    SourceRecord,
    TensorRecord,
)

BOS, EOS, END_OF_TURN = 0, 1, 2
SPECIAL_TOKENS = ("<bos>", "<eos>", "<end_of_turn>")
VOCAB = 256 + len(SPECIAL_TOKENS)
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, MAX_POSITIONS = 32, 2, 2, 1, 16, 256
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}<end_of_turn>"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)

BODY = BodyRecord(
    precision="fp32",
    hidden_size=HIDDEN,
    num_layers=LAYERS,
    num_kv_heads=KV_HEADS,
    head_dim=HEAD_DIM,
    max_positions=MAX_POSITIONS,
    past_key_names=[f"past_key_values.{i}.key" for i in range(LAYERS)],
    past_value_names=[f"past_key_values.{i}.value" for i in range(LAYERS)],
    present_key_names=[f"present.{i}.key" for i in range(LAYERS)],
    present_value_names=[f"present.{i}.value" for i in range(LAYERS)],
)


def byte_level_tokenizer() -> Tokenizer:
    """Every byte is a token, after the special tokens; encoding adds BOS."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def write_tokenizer(folder: Path, tokenizer: Tokenizer, *, template: str | None = None) -> None:
    """Write the tokenizer files of a bundle."""
    tokenizer.save(str(folder / layout.TOKENIZER))
    config = {"bos_token": "<bos>", "eos_token": {"content": "<eos>", "special": True}}
    (folder / layout.TOKENIZER_CONFIG).write_text(json.dumps(config))
    if template is not None:
        (folder / layout.CHAT_TEMPLATE).write_text(template)


def embedding_rows() -> np.ndarray:
    """Rows of embedding and head, [V, H] float32."""
    return np.random.default_rng(7).normal(size=(VOCAB, HIDDEN)).astype(np.float32)


def head_index() -> HeadIndex:
    """Four clusters of ids backwards, then one padding slot, as the graph has them."""
    rows = np.append(embedding_rows()[::-1], np.zeros((1, HIDDEN), np.float32), axis=0).reshape(4, 65, HIDDEN)
    return HeadIndex(
        token_order=np.append(np.arange(VOCAB, dtype=np.int32)[::-1], np.int32(-1)).reshape(4, 65),
        centroids=rows.mean(axis=1),
        centroid_bias=np.zeros(4, np.float32),
        selection_offset=np.ones(4, np.float32),
        cluster_variance=np.ones(4, np.float32),
        vocab_size=VOCAB,
    )


def decode_graph(*, shift: float = 0.0) -> onnx.ModelProto:
    """A decoder whose cache runs through GroupQueryAttention, as real bodies have it.

    All tokens are candidates, the ids backwards, followed by one padding slot.
    """
    random = np.random.default_rng(8)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    def op(kind: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, list(outputs), domain=domain, **attributes))
        return outputs[0]

    def weight(name: str, *shape: int) -> str:
        return constant(name, (random.normal(size=shape) * shape[0] ** -0.5).astype(np.float32))

    table = embedding_rows()
    one = constant("one", np.array([1], np.int64))
    counts = op("ReduceSum", ["attention_mask", one], "count", keepdims=0)
    op("Cast", [op("Sub", [counts, one], "last")], "seqlens_k", to=TensorProto.INT32)
    op("Shape", ["attention_mask"], "total", start=1, end=2)
    op("Squeeze", [op("Cast", ["total"], "total32", to=TensorProto.INT32)], "total_length")
    angles = np.arange(MAX_POSITIONS)[:, None] / 100.0 ** (np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
    cos, sin = (constant(name, f(angles).astype(np.float32)) for name, f in (("cos", np.cos), ("sin", np.sin)))

    hidden = op("Gather", [constant("table", table), "input_ids"], "embeds")
    for i in range(LAYERS):
        sizes = {"q": HEADS * HEAD_DIM, "k": KV_HEADS * HEAD_DIM, "v": KV_HEADS * HEAD_DIM}
        qkv = [op("MatMul", [hidden, weight(f"{n}{i}", HIDDEN, size)], f"{n}{i}_out") for n, size in sizes.items()]
        past = [BODY.past_key_names[i], BODY.past_value_names[i]]
        present = [BODY.present_key_names[i], BODY.present_value_names[i]]
        inputs = [*qkv, *past, "seqlens_k", "total_length", cos, sin]
        facts = {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "do_rotary": 1}
        mixed = op("GroupQueryAttention", inputs, f"attention{i}", *present, domain="com.microsoft", **facts)
        mixed = op("MatMul", [mixed, weight(f"o{i}", HEADS * HEAD_DIM, HIDDEN)], f"o{i}_out")
        hidden = op("Tanh", [op("Add", [hidden, mixed], f"sum{i}")], f"hidden{i}")
    op("GatherND", [hidden, "scored_positions"], "hidden_states")

    op("MatMul", ["hidden_states", constant("rows", np.ascontiguousarray(table[::-1].T))], "products")
    op("Add", ["products", constant("shift", np.array(shift, np.float32))], "logits")
    op("Shape", ["hidden_states"], "batch", start=0, end=1)
    column = op("Concat", ["batch", one], "column", axis=0)
    op("Expand", [constant("padding", np.array([-np.inf], np.float32)), column], "padding_logits")
    op("Concat", ["logits", "padding_logits"], "candidate_logits", axis=1)
    ids = constant("ids", np.append(np.arange(VOCAB)[::-1], -1)[None].astype(np.int64))
    op("Expand", [ids, column], "candidate_ids")
    op("ArgMax", ["candidate_logits"], "place", axis=1, keepdims=0)
    op("Sub", [constant("highest", np.array(VOCAB - 1, np.int64)), "place"], "token_ids")
    op("MatMul", ["hidden_states", weight("centroids", HIDDEN, 4)], "cluster_scores")

    cache = ["B", KV_HEADS, "P", HEAD_DIM]
    ints, floats = TensorProto.INT64, TensorProto.FLOAT
    ins = [("input_ids", ints, ["B", "S"]), ("attention_mask", ints, ["B", "T"])]
    ins += [("scored_positions", ints, ["N", 2])]
    ins += [(name, floats, cache) for name in (*BODY.past_key_names, *BODY.past_value_names)]
    outs = [("token_ids", ints, ["N"]), ("candidate_ids", ints, ["N", "M"]), ("candidate_logits", floats, ["N", "M"])]
    outs += [("cluster_scores", floats, ["N", 4]), ("hidden_states", floats, ["N", HIDDEN])]
    outs += [(name, floats, ["B", KV_HEADS, "T", HEAD_DIM]) for name in BODY.present_key_names]
    outs += [(name, floats, ["B", KV_HEADS, "T", HEAD_DIM]) for name in BODY.present_value_names]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*fact) for fact in ins],
        [helper.make_tensor_value_info(*fact) for fact in outs],
        weights,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def write_bundle(folder: Path, *, template: str | None = TEMPLATE, has_body: bool = True, shift: float = 0.0) -> Path:
    """Write the whole bundle; ``shift`` is added to all logits (NaN spoils them)."""
    folder.mkdir()
    write_tokenizer(folder, byte_level_tokenizer(), template=template)
    save_index(head_index(), folder / layout.INDEX)
    with DataFile(folder / layout.HEAD_DATA) as data:
        rows = np.append(embedding_rows()[::-1], np.zeros((1, HIDDEN), np.float32), axis=0)
        table = data.append(layout.ROWS, rows.reshape(4, 65, HIDDEN))
    graphs = {}
    if has_body:
        for name, file in (("decode", layout.DECODE_GRAPH), ("dense", layout.DENSE_GRAPH)):
            model = decode_graph(shift=shift)
            onnx.save(model, folder / file)
            names = [[tensor.name for tensor in tensors] for tensors in (model.graph.input, model.graph.output)]
            graphs[name] = GraphRecord(file, *names)
    index = IndexRecord(
        num_clusters=4,
        cluster_size=65,
        num_probes=4,
        always_scored=0,
        rows_scored=VOCAB,
        reduction=1.0,
        centroid_precision="fp32",
        cluster_precision="fp32",
        clustering_seconds=0.0,
        calibration=CalibrationRecord("builtin", 0, 0),
        quality=QualityRecord(0, None, None),
    )
    manifest = Manifest(
        created_by="tests",
        source=SourceRecord("folder", "tiny", "llama", "0" * 64),
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        tied=True,
        logit_scale=1.0,
        logit_softcap=None,
        has_bias=False,
        embedding_scale=1.0,
        bos_token_ids=[BOS],
        eos_token_ids=[EOS, END_OF_TURN],
        always_scored_ids=[],
        index=index,
        graphs=graphs,
        tables={table.name: TensorRecord(table.location, table.dtype, list(table.shape), table.offset, table.length)},
        body=BODY if has_body else None,
        files={file.name: hash_file(file) for file in sorted(folder.iterdir())},
    )
    (folder / layout.MANIFEST).write_text(manifest.to_json())
    return folder
