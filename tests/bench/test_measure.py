"""Real sessions over tiny models: what rows hold, not how fast anything is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from flashhead_edge import layout, native
from flashhead_edge.bench.heads import BODY_ALONE, decoding_graphs, form_of
from flashhead_edge.bench.measure import run_bench
from flashhead_edge.bench.options import DEVICES, HEADS, BenchOptions, Test
from flashhead_edge.bench.turns import SETTLING, prompts_of, take_turn
from flashhead_edge.errors import BundleError, RuntimeUnavailableError
from flashhead_edge.runtimes.decoder import Decoder
from tests.tiny_bundle import write_bundle

needs_native = pytest.mark.skipif(not native.is_available(), reason="the native library was not compiled")


@pytest.mark.parametrize("tied", [True, False])
def test_rows(whole_bundle, tied):
    bundle = whole_bundle(tied=tied)
    beside = set(bundle.path.parent.iterdir())
    seen = []
    options = BenchOptions(prompt_tokens=(4,), new_tokens=(6,), batches=(1, 2), heads=HEADS, rounds=3)
    rows = run_bench(bundle, options, lambda stage, done, total: seen.append((done, total)))
    assert [(row.test, row.batch, row.head) for row in rows] == [
        (test, batch, head) for test in ("pp4", "tg6") for batch in (1, 2) for head in HEADS
    ]
    for row in rows:
        assert row.tokens_per_second_min <= row.tokens_per_second_p50 <= row.tokens_per_second_max
        assert row.peak_rss_bytes > 10 << 20
        assert row.baseline == "dense-int8"
        assert row.rounds == 3
        assert (row.step_ms_p50 is not None) == (row.test == "tg6")
        portable = native.is_available() and row.head == "two-stage-portable"  # whose body is another
        assert (row.head_ms_p50 is not None) == (row.test == "tg6" and not portable)
    assert {row.agreement for row in rows if row.head == "dense-fp32"} == {1.0}
    assert all(0.0 <= row.agreement <= 1.0 for row in rows)
    assert [row.ratio_p50 for row in rows if row.head == "dense-int8"] == [1.0] * 4
    assert seen == [(done, 3) for done in range(4)]
    assert set(bundle.path.parent.iterdir()) == beside


def test_written_heads_are_heads_over_the_same_body(whole_bundle):
    bundle = whole_bundle()
    body = bundle.manifest.body
    prompt = np.array([[5, 9, 30]])
    with decoding_graphs(bundle, ("dense-fp32", "dense-int8")) as graphs:
        exact, int8 = (
            Decoder(graphs[head], body, threads=1, outputs=("candidate_logits", "hidden_states"))
            for head in ("dense-fp32", "dense-int8")
        )
        (_, expected), (logits, states) = exact.run(prompt), int8.run(prompt)
        dense = Decoder(graphs["dense-fp32"], body, threads=1).step(prompt).head
        del exact, int8
    np.testing.assert_array_equal(states, expected)
    assert logits.shape == (1, bundle.manifest.vocab_size)
    by_id = np.zeros(bundle.manifest.vocab_size, np.float32)
    real = dense.candidate_ids[0] >= 0
    by_id[dense.candidate_ids[0][real]] = dense.candidate_logits[0][real]
    assert np.abs(logits[0] - by_id).max() < 0.05 * np.abs(by_id).max()
    assert not graphs["dense-int8"].exists()


@pytest.mark.parametrize("switch", ["0", pytest.param("1", marks=needs_native)])
def test_the_body_alone_is_the_heads_own(whole_bundle, monkeypatch, switch):
    bundle = whole_bundle()
    monkeypatch.setenv(native.SWITCH, switch)
    with decoding_graphs(bundle, ("two-stage", "dense-int8")) as graphs:
        nodes = [
            {(node.domain, node.op_type) for node in onnx.load(path, load_external_data=False).graph.node}
            for path in (graphs["two-stage"], graphs[BODY_ALONE])
        ]
        attention = ("flashhead_edge" if switch == "1" else "com.microsoft", "GroupQueryAttention")
        assert attention in nodes[0] & nodes[1]
        states = {}
        for head in ("two-stage", BODY_ALONE):
            decoder = Decoder(graphs[head], bundle.manifest.body, threads=1, outputs=("hidden_states",))
            states[head] = decoder.run(np.array([[3, 4, 5]]), greedy=True)[0]
        np.testing.assert_array_equal(states[BODY_ALONE], states["two-stage"])
    with decoding_graphs(bundle, ("two-stage",)) as graphs:  # nothing is written for it
        assert set(graphs) == {"two-stage"}


def test_graphs_for_a_gpu_are_of_one_form(whole_bundle):
    """Chosen as for a GPU, and run on the processor."""
    bundle, heads = whole_bundle(), ("two-stage", "dense-fp32", "dense-int8")
    body = bundle.manifest.body
    with decoding_graphs(bundle, heads, DEVICES["cuda"]) as graphs:
        assert {form_of(path) for path in graphs.values()} == {layout.CUDA_SUFFIX}
        assert set(graphs) == {*heads, BODY_ALONE}
        for head in graphs:
            fetched = "hidden_states" if head == BODY_ALONE else "token_ids"
            decoder = Decoder(graphs[head], body, threads=1, outputs=(fetched,))
            assert decoder._cache.dtype == np.float16
            assert take_turn(decoder, Test("tg", 3), [3, 4, 5]).tokens == 3


def test_a_gpu_that_is_not_there_is_an_error(whole_bundle):
    with pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider"):
        run_bench(whole_bundle(), BenchOptions(heads=("two-stage",), device="cuda"))


def test_turns(whole_bundle):
    bundle = whole_bundle()
    body = bundle.manifest.body
    for fetched in ("token_ids", "hidden_states"):
        decoder = Decoder(bundle.path / layout.DECODE_GRAPH, body, threads=1, outputs=(fetched,))
        turn = take_turn(decoder, Test("tg", 40, 2), [3, 4, 5])
        assert turn.tokens == 80
        assert turn.seconds.shape == (40,)
        assert decoder.position <= 8 + 40 + SETTLING
        reading = take_turn(decoder, Test("pp", 10), [3, 4, 5])
        assert (reading.tokens, len(reading.seconds)) == (10, 1)
        assert reading.tokens_per_second == pytest.approx(10 / reading.seconds[0])


def test_prompts_are_as_long_as_asked():
    assert prompts_of([1, 2, 3], 2, 4).tolist() == [[1, 2, 3, 1], [2, 3, 1, 2]]


def test_a_head_alone_cannot_decode(tmp_path):
    from flashhead_edge import Bundle

    bundle = Bundle.open(write_bundle(tmp_path / "bundle", has_body=False))
    with pytest.raises(BundleError, match="no body"), decoding_graphs(bundle, ("two-stage",)):
        pass
