"""Whole models on OpenVINO, against ONNX Runtime on the same graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

pytest.importorskip("openvino")

from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import BundleError, OptionError, RuntimeUnavailableError
from flashhead_edge.generator import Generator
from flashhead_edge.runtimes.decoder import Decoder
from flashhead_edge.runtimes.openvino_decoder import OpenVinoDecoder
from tests.tiny_bundle import BODY, MAX_POSITIONS, VOCAB, decode_graph, write_bundle

IDS = np.random.default_rng(3).integers(0, VOCAB, size=(2, 30))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    file = tmp_path_factory.mktemp("graph") / "decode.onnx"
    onnx.save(decode_graph(), file)
    return file


@pytest.fixture(scope="module")
def decoder(graph):
    return OpenVinoDecoder(graph, BODY, threads=1)


def same(found, expected):
    np.testing.assert_array_equal(found.head.token_ids, expected.head.token_ids)
    np.testing.assert_array_equal(found.head.candidate_ids, expected.head.candidate_ids)
    np.testing.assert_allclose(found.head.candidate_logits, expected.head.candidate_logits, atol=1e-4)
    np.testing.assert_allclose(found.hidden_states, expected.hidden_states, atol=1e-5)


def test_steps_are_those_of_onnxruntime(graph, decoder):
    other = Decoder(graph, BODY, threads=1)
    decoder.reset(positions=30)
    for start, stop in [(0, 6), *((i, i + 1) for i in range(6, 30))]:
        same(decoder.step(IDS[:1, start:stop]), other.step(IDS[:1, start:stop]))
    assert decoder.position == 30


def test_several_positions_and_rewinding(graph, decoder):
    other = Decoder(graph, BODY, threads=1)
    decoder.reset()
    for part in (decoder, other):
        part.step(IDS[:1, :12])
        part.rewind(7)
    same(decoder.step(IDS[:1, 7:11], scored=3), other.step(IDS[:1, 7:11], scored=3))
    with pytest.raises(OptionError, match="0 to 11"):
        decoder.rewind(12)


def test_earlier_results_stay_as_they_were(decoder):
    decoder.reset()
    first = decoder.step(IDS[:1, :3])
    kept = first.head.candidate_logits.copy()
    decoder.step(IDS[:1, 3:4])
    np.testing.assert_array_equal(first.head.candidate_logits, kept)


def test_limits(decoder, graph, tmp_path):
    decoder.reset()
    with pytest.raises(OptionError, match=f"at most {MAX_POSITIONS}"):
        decoder.step(np.zeros((1, MAX_POSITIONS + 1), np.int64))
    with pytest.raises(OptionError, match="shape"):
        decoder.step(np.zeros(3, np.int64))
    for several in (
        lambda: decoder.for_batch(rows=2, positions=10),
        lambda: decoder.reset(batch=2),
    ):
        with pytest.raises(OptionError, match="one text"):
            several()
    with pytest.raises(OptionError, match="shape"):
        decoder.step(IDS[:, :3])
    with pytest.raises(RuntimeUnavailableError, match="NPU"):
        OpenVinoDecoder(graph, BODY, device="NPU")
    with pytest.raises(BundleError):
        OpenVinoDecoder(tmp_path / "absent.onnx", BODY)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 1.0, "seed": 2}, {"num_drafts": 3}], ids=["greedy", "drawn", "drafts"]
)
def test_texts_are_those_of_onnxruntime(tmp_path, options):
    bundle = Bundle.open(write_bundle(tmp_path / "tiny"))
    ours = Generator(bundle, runtime="openvino", threads=1).generate("hello hello", max_new_tokens=20, **options)
    theirs = Generator(bundle, runtime="onnxruntime", threads=1).generate("hello hello", max_new_tokens=20, **options)
    assert ours.token_ids == theirs.token_ids
    assert (ours.runtime, ours.providers) == ("openvino", ("CPU",))
