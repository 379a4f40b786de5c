"""Attention of the native library: against ONNX Runtime's, and bit for bit against itself however a text is split."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from flashhead_edge import native
from flashhead_edge.export.native_attention import use_native_attention

_Float32 = npt.NDArray[np.float32]
POSITIONS = 96


class Shape(NamedTuple):
    """Heads of an attention, and what it does to scores."""

    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    packed: bool = True
    rotary: int | None = 16
    interleaved: bool = False
    window: int = -1
    softcap: float = 0.0


SHAPES = {
    "llama": Shape(6, 2, 64, rotary=64),
    "gemma 3": Shape(4, 1, 256, packed=False, rotary=256, window=7),
    "gemma 2": Shape(4, 2, 32, packed=False, rotary=32, window=5, softcap=3.0),
    "partial rotary, neighbours": Shape(4, 4, 48, rotary=16, interleaved=True),
    "no rotary": Shape(3, 3, 24, rotary=None),
}


def graph(shape: Shape) -> onnx.ModelProto:
    """One attention, ONNX Runtime's own."""
    own, shared = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    width = own + 2 * shared if shape.packed else own
    cache = ["B", shape.kv_heads, "past", shape.head_dim]
    present = ["B", shape.kv_heads, "total", shape.head_dim]
    inputs = [helper.make_tensor_value_info("query", TensorProto.FLOAT, ["B", "S", width])]
    if not shape.packed:
        inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "S", shared]) for name in ("k", "v")]
    past = [f"past_key_values.0.{kind}" for kind in ("key", "value")]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, cache) for name in past]
    inputs += [
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
        helper.make_tensor_value_info("total", TensorProto.INT32, []),
    ]
    names = ["query", *([] if shape.packed else ["k", "v"]), *past, "lengths", "total"]
    if shape.packed:
        names[1:1] = ["", ""]
    tables = []
    if shape.rotary:
        angle = np.arange(POSITIONS)[:, None] / 50.0 ** (np.arange(shape.rotary // 2) / shape.rotary)
        tables = [
            helper.make_tensor(n, TensorProto.FLOAT, angle.shape, f(angle).astype(np.float32).ravel())
            for n, f in (("cos", np.cos), ("sin", np.sin))
        ]
        names += ["cos", "sin"]
    outputs = [
        helper.make_tensor_value_info("output", TensorProto.FLOAT, ["B", "S", own]),
        *(helper.make_tensor_value_info(f"present.0.{kind}", TensorProto.FLOAT, present) for kind in ("key", "value")),
    ]
    node = helper.make_node(
        "GroupQueryAttention",
        names,
        [value.name for value in outputs],
        domain="com.microsoft",
        num_heads=shape.heads,
        kv_num_heads=shape.kv_heads,
        scale=shape.head_dim**-0.5,
        softcap=shape.softcap,
        local_window_size=shape.window,
        do_rotary=int(bool(shape.rotary)),
        rotary_interleaved=int(shape.interleaved),
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        helper.make_graph([node], "g", inputs, outputs, tables), opset_imports=opsets, ir_version=10
    )


class Text:
    """A session that is fed a text step by step."""

    def __init__(self, shape: Shape, *, ours: bool, threads: int = 1) -> None:
        model = graph(shape)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if ours:
            assert use_native_attention(model)
            options.register_custom_ops_library(str(native.LIBRARY))
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self._shape = shape

    def step(self, fed: dict[str, _Float32], past: list[_Float32], before: npt.NDArray[Any]) -> list[_Float32]:
        """Output, keys and values; ``before`` are the positions that each row has already."""
        batch, length = fed["query"].shape[:2]
        shape = (batch, self._shape.kv_heads, 0, self._shape.head_dim)
        past = past or [np.empty(shape, np.float32)] * 2
        feeds: dict[str, Any] = {
            f"past_key_values.0.{kind}": part for kind, part in zip(("key", "value"), past, strict=True)
        }
        feeds |= fed | {"lengths": (before + length - 1).astype(np.int32)}
        feeds["total"] = np.array(before.max() + length, np.int32)
        results: list[_Float32] = self._session.run(None, feeds)
        return results

    def read(self, fed: dict[str, _Float32], splits: list[int]) -> list[_Float32]:
        """The outputs of a text in steps of ``splits`` positions, joined, and the cache."""
        outputs, past, begin = [], [], 0
        for length in splits:
            part = {name: value[:, begin : begin + length] for name, value in fed.items()}
            output, *past = self.step(part, past, np.full(len(part["query"]), begin))
            outputs.append(output)
            begin += length
        return [np.concatenate(outputs, axis=1), *past]


def random_text(shape: Shape, length: int, *, batch: int = 1, seed: int = 0) -> dict[str, _Float32]:
    """Queries, keys and values before they turn."""
    random = np.random.default_rng(seed)
    own, shared = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    widths = {"query": own + 2 * shared} if shape.packed else {"query": own, "k": shared, "v": shared}
    return {n: random.standard_normal((batch, length, w)).astype(np.float32) for n, w in widths.items()}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("splits", [[11], [1], [20, 1, 1], [9, 4, 1, 3]], ids=str)
def test_it_is_what_onnx_runtime_computes(kernels: str, shape: Shape, splits: list[int]) -> None:
    text = random_text(shape, sum(splits))
    ours, theirs = (Text(shape, ours=flag).read(text, splits) for flag in (True, False))
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), name=st.sampled_from(sorted(SHAPES)), seed=st.integers(0, 99), threads=st.integers(1, 3))
def test_the_bits_do_not_depend_on_how_a_text_is_split(data: Any, name: str, seed: int, threads: int) -> None:
    shape, left = SHAPES[name], data.draw(st.integers(1, 40))
    text = random_text(shape, left, seed=seed)
    splits = []
    while left:
        splits.append(data.draw(st.integers(1, left)))
        left -= splits[-1]
    whole = Text(shape, ours=True).read(text, [sum(splits)])
    for found, expected in zip(Text(shape, ours=True, threads=threads).read(text, splits), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_long_texts_are_shared_among_threads() -> None:
    shape = SHAPES["gemma 3"]._replace(window=-1)
    text = random_text(shape, 90)
    alone = Text(shape, ours=True).read(text, [80, 1, 9])
    shared = Text(shape, ours=True, threads=3).read(text, [80, 1, 9])
    theirs = Text(shape, ours=False).read(text, [80, 1, 9])
    for found, expected, other in zip(shared, alone, theirs, strict=True):
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-5)


def test_rows_of_a_batch_are_as_long_as_they_say() -> None:
    """Prompts of 7 and 4 tokens, padded on the right, and two steps of two tokens each."""
    shape = SHAPES["llama"]
    text, session = random_text(shape, 11, batch=2), Text(shape, ours=True)
    prompt = {name: value[:, :7] for name, value in text.items()}
    lengths = np.array([7, 4])
    feeds = {f"past_key_values.0.{kind}": np.empty((2, 2, 0, 64), np.float32) for kind in ("key", "value")}
    feeds |= prompt | {"lengths": (lengths - 1).astype(np.int32), "total": np.array(7, np.int32)}
    first, *past = session._session.run(None, feeds)
    assert not first[1, 4:].any()
    outputs = [first]
    for begin in (7, 9):
        part = {name: value[:, begin : begin + 2] for name, value in text.items()}
        before = lengths + begin - 7
        output, *past = session.step(part, past, before)
        outputs.append(output)
    for row, length in enumerate(lengths):
        alone = {n: np.concatenate([v[row : row + 1, :length], v[row : row + 1, 7:]], axis=1) for n, v in text.items()}
        expected, *_ = session.read(alone, [length, 4])
        found = np.concatenate([outputs[0][row, :length], outputs[1][row], outputs[2][row]])
        np.testing.assert_array_equal(found, expected[0])


def test_not_a_number_stays_one() -> None:
    shape = SHAPES["llama"]
    text = random_text(shape, 3)
    text["query"][0, 1, : 6 * 64] = np.nan
    output, *_ = Text(shape, ours=True).read(text, [3])
    assert np.isnan(output[0, 1]).all()
    assert np.isfinite(output[0, [0, 2]]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": np.array([40], np.int32)}, "seqlens_k is out of range"),
        ({"total": np.array(1, np.int32)}, "total_sequence_length is less"),
        ({"query": np.zeros((1, 2, 8), np.float32)}, "Got invalid dimensions|do not fit"),
        ({"total": np.array(POSITIONS + 1, np.int32)}, "cos_cache does not fit"),
    ],
)
def test_what_does_not_fit_is_an_error(change: dict[str, Any], message: str) -> None:
    shape = Shape()
    feeds: dict[str, Any] = {
        f"past_key_values.0.{kind}": np.empty((1, 2, 0, 16), np.float32) for kind in ("key", "value")
    }
    feeds |= random_text(shape, 2) | {"lengths": np.array([1], np.int32), "total": np.array(2, np.int32)}
    with pytest.raises(Exception, match=message):
        Text(shape, ours=True)._session.run(None, feeds | change)


class TestConversion:
    """Which attention the native library takes."""

    def test_what_it_does_not_do_stays(self) -> None:
        for change in ("smooth_softmax", "head_sink", "half", "no scale"):
            model = graph(Shape())
            node = model.graph.node[0]
            if change == "smooth_softmax":
                node.attribute.append(helper.make_attribute(change, 1))
            elif change == "head_sink":
                node.input.extend(["", "", change])
            elif change == "half":
                model.graph.input[1].type.tensor_type.elem_type = TensorProto.FLOAT16
            else:
                node.attribute.remove(next(a for a in node.attribute if a.name == "scale"))
            before = model.SerializeToString()
            assert not use_native_attention(model)
            assert model.SerializeToString() == before

    def test_attributes_that_are_off_do_not_count(self) -> None:
        model = graph(Shape())
        model.graph.node[0].attribute.append(helper.make_attribute("smooth_softmax", 0))
        assert use_native_attention(model)
        assert {attribute.name for attribute in model.graph.node[0].attribute} >= {"scale", "softcap", "num_heads"}
