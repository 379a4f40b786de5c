"""A folder as the exporter of TensorRT Edge-LLM 0.11.0 writes it, and what ONNX Runtime needs to run it.

Names, operators, types, opset and IR version are those of its export of a tiny Qwen3, one layer of it without MLP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flashhead_edge.lm_head import LmHead

DOMAIN, OPSET, IR_VERSION = "trt_edgellm", 24, 10
HEADS, KV_HEADS, HEAD_DIM, PAGE = 2, 1, 16, 128
LM_HEAD = "_model.lm_head.weight"
_ATTENTION_INPUTS = (
    *("qkv", "past", "query_lengths", "rope_rotary_cos_sin", "past_lengths", "kv_page_table"),
    *("query_start_offsets", "attention_sequence_lengths", "execution_phase_marker", "context_sequence_count_carrier"),
)
_METADATA = _ATTENTION_INPUTS[2:3] + _ATTENTION_INPUTS[4:]
_WORD, _HALF, _FLOAT, _LONG = TensorProto.INT32, TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.INT64


def write_edge_llm(folder: Path, head: LmHead, *, softcap: float | None = None) -> Path:
    """Write ``llm/model.onnx`` with its data file and what lies beside it; returns the graph's path."""
    folder = folder / "llm"
    folder.mkdir(parents=True)
    vocab, width = head.rows.shape
    random = np.random.default_rng(5)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    def matrix(name: str, *shape: int) -> str:
        return constant(name, (random.normal(size=shape) * shape[0] ** -0.5).astype(np.float16))

    def op(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], f"node_{output}", **attributes))
        return output

    qkv = op("MatMul", ["inputs_embeds", matrix("qkv", width, (HEADS + 2 * KV_HEADS) * HEAD_DIM)], "view")
    attention = ["getitem", "present_key_values_0"]
    inputs = [qkv, "past_key_values_0", *_ATTENTION_INPUTS[2:]]
    nodes.append(helper.make_node("AttentionPlugin", inputs, attention, "n5", domain=DOMAIN))
    value = op("MatMul", ["getitem", matrix("o", HEADS * HEAD_DIM, width)], "linear_1")
    value = op(
        "Cast",
        [
            op("Add", ["inputs_embeds", value], "add"),
        ],
        "_to_copy",
        to=_FLOAT,
    )
    square = op("Pow", [value, constant("val_2", np.array(2, np.float32))], "pow")
    mean = op("ReduceMean", [square, constant("val_5", np.array([-1], np.int64))], "mean", keepdims=1)
    root = op("Sqrt", [op("Add", [mean, constant("val_6", np.array(1e-6, np.float32))], "add_2")], "val_53")
    value = op("Mul", [value, op("Reciprocal", [root], "rsqrt")], "mul")
    norm = constant("_model.model.norm.weight", np.full(width, 3, np.float16))
    value = op("Mul", [norm, op("Cast", [value], "_to_copy_1", to=_HALF)], "mul_2")
    value = op("Reshape", [value, constant("val_57", np.array([-1, width], np.int64))], "view_4", allowzero=1)
    places = op("Reshape", ["logits_indices", "val_5"], "val_59", allowzero=0)
    value = op("Gather", [value, places], "index_select", axis=0)
    rows = constant(LM_HEAD, head.rows.astype(np.float16))
    value = op("Gemm", [value, rows], "linear_10", alpha=1.0, beta=1.0, transA=0, transB=1)
    value = op("Cast", [value], "_to_copy_10", to=_FLOAT)
    if softcap is not None:
        cap = constant("cap", np.array(softcap, np.float32))
        value = op("Mul", [op("Tanh", [op("Div", [value, cap], "div")], "tanh"), cap], "mul_cap")
    op("Reshape", [value, constant("val_64", np.array([-1, vocab], np.int64))], "logits", allowzero=1)

    def described(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    cache = (2, "num_pages", PAGE, KV_HEADS, HEAD_DIM)
    ins = [
        described("inputs_embeds", _HALF, "physical_tokens", width),
        described("past_key_values_0", _HALF, *cache),
        described("rope_rotary_cos_sin", _FLOAT, "physical_tokens", HEAD_DIM),
        *(described(name, _WORD, *("a", 2, "b")[: 3 if name == "kv_page_table" else 1]) for name in _METADATA),
        described("logits_indices", _LONG, "num_sequences"),
    ]
    outs = [described("logits", _FLOAT, "num_sequences", vocab), described("present_key_values_0", _HALF, *cache)]
    graph = helper.make_graph(nodes, "main_graph", ins, outs, weights)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="pytorch")
    everything = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 0}
    onnx.save_model(model, folder / "model.onnx", **everything)
    for name in ("config.json", "embedding.safetensors", "tokenizer.json"):
        (folder / name).write_text(f"{name} of the exporter")
    return folder / "model.onnx"


def with_attention(model: Path) -> Path:
    """The graph with a stand-in for the plugin, which passes the queries on, and with its weights inside.

    The exporter puts the shapes that Reshape reads into the data file too, where ONNX Runtime does not look for them.
    """
    loaded = onnx.load(model)
    bounds = {"start": [0], "end": [HEADS * HEAD_DIM], "axis": [1]}
    nodes = [helper.make_node("Constant", [], [name], value_ints=value) for name, value in bounds.items()]
    nodes += [
        helper.make_node("Slice", ["qkv", *bounds], ["attention"]),
        helper.make_node("Identity", ["past"], ["present"]),
    ]
    opset = [helper.make_opsetid("", OPSET)]
    outputs = ["attention", "present"]
    plugin = helper.make_function(DOMAIN, "AttentionPlugin", _ATTENTION_INPUTS, outputs, nodes, opset)
    loaded.functions.append(plugin)
    runnable = model.with_name("runnable.onnx")
    runnable.write_bytes(loaded.SerializeToString())
    return runnable


def feeds(width: int, *, tokens: int, logits_indices: list[int], seed: int = 3) -> dict[str, np.ndarray]:
    """Inputs for one sequence; the stand-in looks at the embeddings only."""
    count = {name: np.zeros(1, np.int32) for name in _METADATA}
    return {
        **count,
        "inputs_embeds": np.random.default_rng(seed).normal(size=(tokens, width)).astype(np.float16),
        "past_key_values_0": np.zeros((2, 1, PAGE, KV_HEADS, HEAD_DIM), np.float16),
        "rope_rotary_cos_sin": np.zeros((tokens, HEAD_DIM), np.float32),
        "kv_page_table": np.zeros((1, 2, 1), np.int32),
        "logits_indices": np.array(logits_indices, np.int64),
    }
