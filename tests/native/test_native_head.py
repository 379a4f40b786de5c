"""The native head against the oracle, against the portable graph, and against its own definition, on all kernels."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnxruntime.capi import onnxruntime_pybind11_state as failures

from flashhead_edge import layout
from flashhead_edge.export.head_graph import dense_graph
from flashhead_edge.export.native_graph import native_dense_graph
from flashhead_edge.lm_head import LmHead
from flashhead_edge.quantize import stored_int8
from flashhead_edge.runtimes.base import HeadOutput
from flashhead_edge.runtimes.reference import ReferenceHead
from flashhead_edge.runtimes.session import open_session
from tests.native.tiny_native import greedy_of, native_and_portable
from tests.tiny_heads import (
    by_token,
    dense_logits,
    int8_head,
    random_head,
    random_index,
    random_states,
    rounded,
    table_bias,
    table_rows,
    write_tables,
)

FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "all": {"bias": True, "logit_scale": 2.5, "logit_softcap": 30.0},
}
NO_TOKEN = 1 << 30
_LOOSE = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def fresh(folder: Path) -> Path:
    return folder / str(len(list(folder.iterdir())))


def check_equal(found: HeadOutput, expected: HeadOutput, vocab: int) -> None:
    np.testing.assert_array_equal(np.sort(found.candidate_ids), np.sort(expected.candidate_ids))
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_allclose(found.cluster_scores, expected.cluster_scores, rtol=1e-4, atol=2e-5)
    logits, wanted = (by_token(o.candidate_ids, o.candidate_logits, vocab) for o in (found, expected))
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(np.isneginf(found.candidate_logits), found.candidate_ids < 0)


@_LOOSE
@given(data=st.data())
def test_it_equals_the_oracle_on_any_shape(tmp_path: Path, kernels: str, data: st.DataObject) -> None:
    vocab = data.draw(st.integers(40, 300), "V")
    width = data.draw(st.integers(1, 200), "H")
    size = data.draw(st.integers(1, 40), "C")
    probes = data.draw(st.integers(1, -(-vocab // size)), "P")
    batch = data.draw(st.integers(1, 32), "B")
    always = tuple(sorted(data.draw(st.sets(st.integers(0, vocab - 1), max_size=20), "always")))
    features = data.draw(st.sampled_from(list(FEATURES.values())), "features")
    rows = data.draw(st.sampled_from(["float32", "float16"]), "rows")
    rank = data.draw(st.none() | st.integers(1, width), "r")
    head = random_head(vocab, width, seed=vocab, **features)
    index = random_index(head, size, always=always, seed=width, rank=rank)
    states = random_states(batch, width, seed=probes)
    oracle = ReferenceHead(
        index,
        table_rows(head, index, rows),
        probes,
        row_bias=table_bias(head, index),
        logit_scale=head.logit_scale,
        logit_softcap=head.logit_softcap,
    )
    native, _ = native_and_portable(fresh(tmp_path), head, index, probes, rows=rows)
    check_equal(native.run(states), oracle.run(states), vocab)


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES.keys())
@pytest.mark.parametrize("width", [32, 96])
def test_int8_rows_have_exact_products(tmp_path: Path, kernels: str, width: int, features: dict[str, Any]) -> None:
    head = int8_head(500, width, seed=width, **features)
    index = random_index(head, 9, always=(0, 5, 77), seed=width)
    facts = {"logit_scale": head.logit_scale, "logit_softcap": head.logit_softcap}
    oracle = ReferenceHead(index, table_rows(head, index), 12, row_bias=table_bias(head, index), **facts)
    native, portable = native_and_portable(tmp_path / "b", head, index, 12, rows="int8")
    for batch in (1, 5, 70):
        states = random_states(batch, width, seed=batch)
        for runtime in (native, portable):
            check_equal(runtime.run(states), oracle.run(states), 500)


def test_the_native_dense_head_is_the_dense_head(tmp_path: Path, kernels: str) -> None:
    for number, (rows, head) in enumerate((("int8", int8_head(300, 64)), ("float32", random_head(300, 64)))):
        index = random_index(head, 7, always=(3,))
        folder = tmp_path / str(number)
        folder.mkdir()
        tables = write_tables(folder, head, index, 2, rows=rows)
        outputs = []
        for name, graph in (
            (layout.DENSE_GRAPH, dense_graph(tables)),
            (layout.NATIVE_DENSE_GRAPH, native_dense_graph(tables)),
        ):
            onnx.save(graph, folder / name)
            outputs.append(open_session(folder / name).run(None, {"hidden_states": random_states(6, 64)}))
        for found, expected in zip(*outputs, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)
        np.testing.assert_array_equal(outputs[0][0], dense_logits(head, random_states(6, 64)).argmax(axis=1))


@_LOOSE
@given(data=st.data())
def test_low_precision_centroids_score_what_their_codes_stand_for(
    tmp_path: Path, kernels: str, data: st.DataObject
) -> None:
    """Closer than the portable graph's, which rounds states to 8 bits: these are rounded to 16."""
    vocab = data.draw(st.integers(40, 300), "V")
    width = data.draw(st.integers(1, 300), "H")
    precision = data.draw(st.sampled_from(["int4", "int8"]), "precision")
    batch = data.draw(st.integers(1, 9), "B")
    rank = data.draw(st.none() | st.integers(1, width), "r")
    head = random_head(vocab, width, seed=width)
    index = random_index(head, 4, seed=vocab, rank=rank)
    states = random_states(batch, width, seed=batch)
    native, _ = native_and_portable(fresh(tmp_path), head, index, 5, centroids=precision)
    oracle = ReferenceHead(index, table_rows(head, index), 5, centroid_precision=precision)
    found, expected = native.run(states), oracle.run(states)
    errors = np.abs(found.cluster_scores - expected.cluster_scores).max(axis=1)
    np.testing.assert_array_less(errors, np.linalg.norm(states, axis=1) * 2e-4 + 1e-6)
    opened = np.argsort(-(found.cluster_scores + index.selection_offset), axis=1, kind="stable")[:, :5]
    for ids, clusters in zip(found.candidate_ids, opened, strict=True):
        assert sorted(ids) == sorted(index.token_order[clusters].ravel())
    np.testing.assert_array_equal(found.token_ids, greedy_of(found.candidate_ids, found.candidate_logits))


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES.keys())
@pytest.mark.parametrize(("centroids", "rows"), [*itertools.product(("int8", "int4"), ("float32", "float16"))])
def test_it_chooses_the_token_of_the_portable_graph(
    tmp_path: Path, kernels: str, centroids: str, rows: str, features: dict[str, Any]
) -> None:
    head = random_head(997, 96, seed=3, **features)
    index = random_index(head, 16, always=(0, 5, 77), seed=3)
    native, portable = native_and_portable(tmp_path / "b", head, index, 40, centroids=centroids, rows=rows)
    states = random_states(32, 96)
    found, expected = native.run(states), portable.run(states)
    # Rounding may exchange the last clusters; with 40 of 63 open the best token is in neither.
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    ours, theirs = (by_token(o.candidate_ids, o.candidate_logits, 997) for o in (found, expected))
    both = ~np.isnan(ours) & ~np.isnan(theirs)
    assert both.mean() > 0.6
    np.testing.assert_allclose(ours[both], theirs[both], rtol=1e-4, atol=2e-5)


def test_a_batch_is_its_rows_bit_for_bit(tmp_path: Path, kernels: str) -> None:
    """However states share opened clusters, each is scored by the same instructions."""
    head = random_head(300, 72, bias=True, logit_softcap=20.0)
    index = random_index(head, 8, always=(1, 2))
    native, _ = native_and_portable(tmp_path / "b", head, index, 9, centroids="int4", rows="float16", low_bits=8)
    states = random_states(70, 72)
    for greedy in (False, True):
        alone = [native.run(states[i : i + 1], greedy=greedy) for i in range(70)]
        for batch in (1, 2, 3, 4, 5, 8, 31, 32, 70):
            for found, *parts in zip(native.run(states[:batch], greedy=greedy), *alone[:batch], strict=True):
                np.testing.assert_array_equal(found, np.concatenate(parts))


def test_ties_go_to_the_lowest_cluster_and_the_lowest_id(tmp_path: Path, kernels: str) -> None:
    head = LmHead(np.zeros((64, 32), np.float32))
    index = random_index(head, 4)
    index.selection_offset[:] = 0
    native, _ = native_and_portable(tmp_path / "b", head, index, 3)
    output = native.run(random_states(2, 32))
    for ids, token in zip(output.candidate_ids, output.token_ids, strict=True):
        assert ids.tolist() == index.token_order[:3].ravel().tolist()
        assert token == min(i for i in ids if i >= 0)


@pytest.mark.parametrize("low_bits", [None, 4, 8])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 1e-40, 0.0])
def test_states_beyond_numbers_harm_nobody_else(
    tmp_path: Path, kernels: str, value: float, low_bits: int | None
) -> None:
    head = random_head(200, 40)
    index = random_index(head, 8)
    native, portable = native_and_portable(
        tmp_path / "b", head, index, 6, centroids="int8", rows="float16", low_bits=low_bits, num_rescored=8
    )
    states = random_states(3, 40)
    expected = native.run(states[[0, 2]], greedy=True)
    states[1] = value
    found = native.run(states, greedy=True)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours[[0, 2]], theirs)
    if np.isnan(value):
        assert found.token_ids[1] == portable.run(states).token_ids[1] == NO_TOKEN
    ids = found.candidate_ids[1]
    assert len(set(ids[ids >= 0])) == (ids >= 0).sum()


def check_greedy(exact: HeadOutput, found: HeadOutput, least: int) -> np.ndarray:
    """What a greedy step must say, with the exact head's output beside; returns where its logits are exact."""
    np.testing.assert_array_equal(found.candidate_ids, exact.candidate_ids)
    np.testing.assert_array_equal(found.cluster_scores, exact.cluster_scores)
    np.testing.assert_array_equal(found.token_ids, exact.token_ids)
    np.testing.assert_array_equal(found.token_ids, greedy_of(found.candidate_ids, found.candidate_logits))
    np.testing.assert_array_equal(np.isneginf(found.candidate_logits), found.candidate_ids < 0)
    same = (found.candidate_logits == exact.candidate_logits) & (found.candidate_ids >= 0)
    assert (same.sum(axis=1) >= least).all()
    return same


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES.keys())
@pytest.mark.parametrize(("bits", "rows"), [*itertools.product((4, 8), ("float32", "float16"))])
def test_low_bit_rows_choose_and_exact_rows_decide(
    tmp_path: Path, kernels: str, bits: int, rows: str, features: dict[str, Any]
) -> None:
    head = random_head(600, 104, seed=5, **features)
    index = random_index(head, 16, always=(0, 9), seed=5)
    states = random_states(17, 104)
    native, _ = native_and_portable(tmp_path / "b", head, index, 12, rows=rows, low_bits=bits, num_rescored=40)
    exact, found = native.run(states), native.run(states, greedy=True)
    same = check_greedy(exact, found, 40)
    dense = dense_logits(rounded(head, rows), states)
    for b in range(17):
        real = exact.candidate_ids[b] >= 0
        ids, logits = exact.candidate_ids[b][real], exact.candidate_logits[b][real]
        np.testing.assert_allclose(logits, dense[b][ids], rtol=1e-4, atol=2e-5)
    below = ~same & (found.candidate_ids >= 0)
    error = np.abs(found.candidate_logits[below] - exact.candidate_logits[below]).max()
    assert 0 < error < (0.05 if bits == 8 else 0.8) * abs(head.logit_scale) * 3


@_LOOSE
@given(data=st.data())
def test_high_nibbles_choose_and_whole_rows_decide(tmp_path: Path, kernels: str, data: st.DataObject) -> None:
    """On any shape: the token, and exact logits of what was checked; estimates stay below."""
    vocab = data.draw(st.integers(80, 600), "V")
    width = 32 * data.draw(st.integers(1, 9), "H / 32")
    size = data.draw(st.integers(2, 40), "C")
    probes = data.draw(st.integers(1, -(-vocab // size) - 1), "P")
    batch = data.draw(st.integers(1, 9), "B")
    always = tuple(sorted(data.draw(st.sets(st.integers(0, vocab - 1), max_size=20), "always")))
    features = data.draw(st.sampled_from(list(FEATURES.values())), "features")
    rescored = data.draw(st.integers(1, 64), "N")
    head = int8_head(vocab, width, seed=vocab, **features)
    index = random_index(head, size, always=always, seed=width)
    native, _ = native_and_portable(
        fresh(tmp_path), head, index, probes, centroids="int4", rows="int8", num_rescored=rescored
    )
    states = random_states(batch, width, seed=probes)
    exact = native.run(states)
    candidates = (exact.candidate_ids >= 0).sum(axis=1)
    if rescored >= 16:  # of which the error of the others is estimated well
        check_greedy(exact, native.run(states, greedy=True), min(rescored, int(candidates.min())))


def test_estimates_of_high_nibbles_are_unbiased_and_close(tmp_path: Path, kernels: str) -> None:
    head = int8_head(4000, 256, seed=1)
    index = random_index(head, 16, seed=2)
    native, _ = native_and_portable(tmp_path / "b", head, index, 200, rows="int8")
    states = random_states(20, 256)
    exact, found = native.run(states), native.run(states, greedy=True)
    below = (found.candidate_logits != exact.candidate_logits) & (found.candidate_ids >= 0)
    errors = found.candidate_logits[below] - exact.candidate_logits[below]
    # A nibble's place within 16 codes is even: 16 / sqrt(12) codes off, each of them a scale of about max / 127.
    assert abs(errors.mean()) < errors.std() / 20
    spread = exact.candidate_logits[below].std()
    assert 0.02 * spread < errors.std() < 0.2 * spread


def test_a_flat_state_is_checked_whole(tmp_path: Path, kernels: str) -> None:
    """Where all logits lie closer together than estimates are off, every candidate is scored exactly."""
    codes = np.random.default_rng(0).integers(-126, 127, (1, 64)).repeat(500, axis=0)
    codes[:, 1::32] = 127
    codes[:, 0] = np.random.default_rng(1).integers(-100, 100, 500)  # rows that differ in one number only
    head = LmHead((codes * 2.0**-9).astype(np.float32))
    assert stored_int8(head.rows) is not None
    index = random_index(head, 8, seed=5)
    native, _ = native_and_portable(tmp_path / "b", head, index, 30, rows="int8")
    states = random_states(6, 64)
    states[:, 0] *= 1e-3
    exact, found = native.run(states), native.run(states, greedy=True)
    same = check_greedy(exact, found, 64)
    assert same.sum() > 0.9 * (exact.candidate_ids >= 0).sum()


def test_rescoring_all_candidates_is_the_exact_head(tmp_path: Path, kernels: str) -> None:
    head = random_head(90, 40)
    index = random_index(head, 4)
    native, _ = native_and_portable(tmp_path / "b", head, index, 4, low_bits=4, num_rescored=16)
    states = random_states(5, 40)
    for found, expected in zip(native.run(states, greedy=True), native.run(states), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_threads_of_the_caller_share_a_session(tmp_path: Path) -> None:
    head = random_head(400, 64)
    index = random_index(head, 8)
    native, _ = native_and_portable(tmp_path / "b", head, index, 9, centroids="int8", low_bits=8, num_rescored=8)
    states = [random_states(1 + i, 64, seed=i) for i in range(6)]
    expected = [native.run(part, greedy=True) for part in states]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(40):
            found = native.run(states[i], greedy=True)
            if not all(np.array_equal(a, b) for a, b in zip(found, expected[i], strict=True)):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def break_graph(folder: Path, change: Any) -> None:
    model = onnx.load(folder / layout.NATIVE_HEAD_GRAPH, load_external_data=False)
    change(model.graph)
    onnx.save(model, folder / layout.NATIVE_HEAD_GRAPH)


@pytest.mark.parametrize(
    ("attribute", "value"), [("num_probes", 0), ("num_probes", 26), ("num_rescored", 0), ("num_probes", -1)]
)
def test_a_graph_that_does_not_fit_its_tables_is_refused(tmp_path: Path, attribute: str, value: int) -> None:
    head = random_head(100, 32)
    index = random_index(head, 4)
    folder = tmp_path / "b"
    native, _ = native_and_portable(folder, head, index, 4, low_bits=8)

    def change(graph: onnx.GraphProto) -> None:
        next(a for a in graph.node[0].attribute if a.name == attribute).i = value

    break_graph(folder, change)
    broken = type(native)(folder / layout.NATIVE_HEAD_GRAPH, native.shape)
    with pytest.raises(failures.InvalidArgument, match="TwoStageHead"):
        broken.run(random_states(1, 32), greedy=True)


@pytest.mark.parametrize("name", [layout.HIGH_NIBBLES, layout.LOW_NIBBLES, layout.ROW_SCALES])
def test_a_part_of_int8_rows_of_another_shape_is_refused(tmp_path: Path, name: str) -> None:
    head = int8_head(100, 32)
    folder = tmp_path / "b"
    native, _ = native_and_portable(folder, head, random_index(head, 4), 4, rows="int8")
    break_graph(folder, lambda graph: shorten(graph, name))
    broken = type(native)(folder / layout.NATIVE_HEAD_GRAPH, native.shape)
    with pytest.raises(failures.InvalidArgument, match="TwoStageHead"):
        broken.run(random_states(1, 32))


def shorten(graph: onnx.GraphProto, name: str) -> None:
    """Take the last of the first axis from a table."""
    tensor = next(t for t in graph.initializer if t.name == name)
    tensor.dims[0] -= 1
    length = next(e for e in tensor.external_data if e.key == "length")
    length.value = str(int(length.value) * tensor.dims[0] // (tensor.dims[0] + 1))


@pytest.mark.parametrize("name", ["head.centroid_bias", layout.TOKEN_ORDER, layout.LOW_BIT_SCALES, "head.centroids"])
def test_a_table_of_another_shape_is_refused(tmp_path: Path, name: str) -> None:
    head = random_head(100, 32)
    folder = tmp_path / "b"
    native, _ = native_and_portable(folder, head, random_index(head, 4), 4, centroids="int8", low_bits=8)
    break_graph(folder, lambda graph: shorten(graph, name))
    broken = type(native)(folder / layout.NATIVE_HEAD_GRAPH, native.shape)
    with pytest.raises(failures.InvalidArgument, match="TwoStageHead"):
        broken.run(random_states(1, 32))
