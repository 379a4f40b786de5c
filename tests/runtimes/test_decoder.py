from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from flashhead_edge.errors import BundleError, OptionError, RuntimeUnavailableError
from flashhead_edge.runtimes.decoder import Decoder
from flashhead_edge.runtimes.session import open_session
from tests.tiny_bundle import BODY, MAX_POSITIONS, VOCAB, decode_graph

IDS = np.random.default_rng(3).integers(0, VOCAB, size=(2, 40))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    file = tmp_path_factory.mktemp("graph") / "decode.onnx"
    onnx.save(decode_graph(), file)
    return file


@pytest.fixture
def decoder(graph):
    return Decoder(graph, BODY, threads=1)


def logits_at_once(graph, ids):
    """The oracle: a fresh decoder reads the whole sequence."""
    return Decoder(graph, BODY, threads=1).step(ids).head.candidate_logits


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("reserved", [0, 40], ids=["growing cache", "reserved cache"])
def test_steps_equal_reading_at_once(graph, decoder, batch, reserved):
    ids = IDS[:batch]
    decoder.reset(batch=batch, positions=reserved)
    output = decoder.step(ids[:, :5])
    for position in range(5, 40):
        np.testing.assert_allclose(output.head.candidate_logits, logits_at_once(graph, ids[:, :position]), atol=1e-5)
        output = decoder.step(ids[:, position : position + 1])
    assert decoder.position == 40


def test_a_prompt_can_come_in_parts(graph, decoder):
    decoder.step(IDS[:1, :7])
    output = decoder.step(IDS[:1, 7:20])
    np.testing.assert_allclose(output.head.candidate_logits, logits_at_once(graph, IDS[:1, :20]), atol=1e-5)


def test_reset_forgets_everything(graph, decoder):
    decoder.step(IDS[:1, :30])
    decoder.reset()
    assert decoder.position == 0
    output = decoder.step(IDS[1:, :6])
    np.testing.assert_allclose(output.head.candidate_logits, logits_at_once(graph, IDS[1:, :6]), atol=1e-5)


def test_batch_may_change_after_reset_only(graph, decoder):
    decoder.step(IDS[:1, :3])
    with pytest.raises(OptionError, match="reset"):
        decoder.step(IDS[:, 3:4])
    decoder.reset()
    np.testing.assert_allclose(
        decoder.step(IDS[:, :4]).head.candidate_logits, logits_at_once(graph, IDS[:, :4]), atol=1e-5
    )


def test_outputs_follow_the_contract_and_stay_as_they_were(decoder):
    first = decoder.step(IDS[:, :3]).head
    kept = first.candidate_logits.copy()
    second = decoder.step(IDS[:, 3:4]).head
    assert first.token_ids.shape == (2,)
    assert first.token_ids.dtype == first.candidate_ids.dtype == np.int64
    assert first.candidate_ids.shape == first.candidate_logits.shape == (2, VOCAB + 1)
    assert first.cluster_scores.shape == (2, 4)
    np.testing.assert_array_equal(first.candidate_logits, kept)
    assert not np.array_equal(first.candidate_logits, second.candidate_logits)


def test_context_is_limited(decoder):
    with pytest.raises(OptionError, match=f"at most {MAX_POSITIONS}"):
        decoder.reset(positions=MAX_POSITIONS + 1)
    decoder.step(np.zeros((1, MAX_POSITIONS), np.int64))
    with pytest.raises(OptionError, match=f"{MAX_POSITIONS + 1} tokens"):
        decoder.step(np.zeros((1, 1), np.int64))


@pytest.mark.parametrize("shape", [(3,), (1, 0), (0, 1), (1, 1, 1)])
def test_wrong_shapes_are_refused(decoder, shape):
    with pytest.raises(OptionError, match="shape"):
        decoder.step(np.zeros(shape, np.int64))


def test_providers_are_reported(decoder):
    assert decoder.providers == ("CPUExecutionProvider",)


def test_absent_provider_is_an_error(graph):
    with pytest.raises(RuntimeUnavailableError, match="NoSuchExecutionProvider"):
        Decoder(graph, BODY, providers=("NoSuchExecutionProvider", "CPUExecutionProvider"))


def test_provider_that_does_not_start_is_an_error(graph, monkeypatch):
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    session = onnxruntime.InferenceSession

    def falls_back(file, options, providers):
        return session(file, options, providers=providers[1:])

    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    with pytest.raises(RuntimeUnavailableError, match="did not start CUDAExecutionProvider"):
        open_session(graph, providers=names)


def test_cpu_is_no_silent_fallback(graph, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    seen = []

    def record(file, options, providers):
        seen.append((options.get_session_config_entry("session.disable_cpu_ep_fallback"), providers))
        raise onnxruntime.capi.onnxruntime_pybind11_state.Fail("no device\nstack")

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    with pytest.raises(RuntimeUnavailableError, match="no device") as caught:
        open_session(graph, providers=["CUDAExecutionProvider"])
    assert seen == [("1", ["CUDAExecutionProvider"])]
    assert "stack" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a graph"])
def test_damaged_graph_is_an_error(tmp_path, content):
    file = tmp_path / "decode.onnx"
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"decode\.onnx"):
        Decoder(file, BODY)
    with pytest.raises(BundleError, match=r"absent\.onnx"):
        Decoder(tmp_path / "absent.onnx", BODY)


def test_threads_and_providers_are_checked(graph):
    with pytest.raises(OptionError, match="threads"):
        Decoder(graph, BODY, threads=0)
    with pytest.raises(OptionError, match="provider"):
        Decoder(graph, BODY, providers=())


def test_manifest_that_does_not_fit_the_graph_is_an_error(graph):
    with pytest.raises(BundleError, match="past"):
        Decoder(graph, replace(BODY, past_key_names=["past.0", "past.1"]))


def test_several_positions_can_be_scored(graph, decoder):
    decoder.step(IDS[:1, :5])
    output = decoder.step(IDS[:1, 5:9], scored=3)
    assert output.hidden_states.shape == (3, output.hidden_states.shape[1])
    for place in range(3):
        expected = logits_at_once(graph, IDS[:1, : 7 + place])
        np.testing.assert_allclose(output.head.candidate_logits[place : place + 1], expected, atol=1e-5)
    with pytest.raises(OptionError, match="scored positions"):
        decoder.step(IDS[:1, 9:10], scored=2)


def test_rewinding_forgets_the_last_tokens(graph, decoder):
    decoder.step(IDS[:1, :12])
    decoder.rewind(7)
    assert decoder.position == 7
    output = decoder.step(IDS[:1, 7:9])
    np.testing.assert_allclose(output.head.candidate_logits, logits_at_once(graph, IDS[:1, :9]), atol=1e-5)
    with pytest.raises(OptionError, match="0 to 9"):
        decoder.rewind(10)
