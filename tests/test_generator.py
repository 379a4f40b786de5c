from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import BundleError, OptionError, RuntimeUnavailableError
from flashhead_edge.generation import GenerationOptions
from flashhead_edge.generator import Generator
from flashhead_edge.runtimes.base import HeadOutput, StepOutput
from flashhead_edge.runtimes.decoder import Decoder
from flashhead_edge.runtimes.selector import CANDIDATES, Choice
from flashhead_edge.sampling import SamplingOptions
from tests.tiny_bundle import BODY, END_OF_TURN, EOS, HIDDEN, MAX_POSITIONS, VOCAB, write_bundle


class ScriptedDecoder:
    """Says a given text, byte by byte, then ``after``: an id to repeat or an exception."""

    providers = ("ScriptedProvider",)

    def __init__(self, tokenizer, text, after=EOS):
        self.script = [*tokenizer.encode(text, add_special_tokens=False)]
        self.after = after
        self.fed = []

    def reset(self, *, batch=1, positions=0):
        self.fed = []

    def step(self, input_ids, *, scored=1, greedy=False):
        place = len(self.fed)
        self.fed.append(input_ids[0].tolist())
        token_id = self.script[place] if place < len(self.script) else self.after
        if isinstance(token_id, type):
            raise token_id
        logits = np.full((1, VOCAB), -5.0, np.float32)
        logits[0, token_id] = 5.0
        ids = np.arange(VOCAB, dtype=np.int64)[None]
        head = HeadOutput(np.array([token_id]), ids, logits, np.zeros((1, 4), np.float32))
        return StepOutput(head, np.zeros((1, HIDDEN), np.float32))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


@pytest.fixture
def generator(bundle):
    return Generator(bundle, threads=1)


@pytest.fixture
def says(generator):
    def script(text, after=EOS):
        generator.decoder = ScriptedDecoder(generator.tokenizer, text, after)
        return generator

    return script


def test_greedy_tokens_are_those_of_the_graph(bundle, generator):
    result = generator.generate("hello", max_new_tokens=10)
    decoder = Decoder(bundle.path / "decode.onnx", BODY, threads=1)
    output, expected = decoder.step(np.array([generator.tokenizer.encode("hello")])).head, []
    for _ in range(len(result.token_ids)):
        expected.append(int(output.token_ids[0]))
        output = decoder.step(output.token_ids[:, None]).head
    assert list(result.token_ids) == expected
    assert result.finish_reason == "length"
    assert result.text == generator.tokenizer.decode(result.token_ids)


def test_result_states_how_it_came_about(generator):
    result = generator.generate("hello", max_new_tokens=5)
    assert result.prompt_tokens == 6
    assert result.time_to_first_token_ms > 0
    assert result.tokens_per_second > 0
    assert (result.head, result.runtime, result.providers) == ("two-stage", "onnxruntime", ("CPUExecutionProvider",))
    assert result.logprobs is None


def test_heads_share_everything_else(bundle, generator):
    dense = Generator(bundle, head="dense", threads=1)
    ours, theirs = (g.generate("hello", max_new_tokens=8, temperature=1.0, seed=3) for g in (generator, dense))
    assert ours.token_ids == theirs.token_ids
    assert theirs.head == "dense"


def test_generations_do_not_disturb_each_other(generator):
    first = generator.generate("hello", max_new_tokens=8).token_ids
    generator.generate("something much longer", max_new_tokens=20)
    assert generator.generate("hello", max_new_tokens=8).token_ids == first


def test_seed_repeats_draws(generator):
    options = {"max_new_tokens": 12, "temperature": 2.0, "top_k": 100, "top_p": 0.99, "min_p": 0.001}
    first, second, other = (generator.generate("a", seed=seed, **options).token_ids for seed in (1, 1, 2))
    assert first == second != other


def test_logprobs_are_over_the_candidates(says):
    result = says("hi").generate("a", logprobs=True)
    assert len(result.logprobs) == len(result.token_ids) == 3
    expected = -np.log(1 + (VOCAB - 1) * np.exp(-10.0))
    assert result.logprobs == pytest.approx([expected] * 3, abs=1e-6)


@pytest.mark.parametrize("end", [EOS, END_OF_TURN])
def test_end_of_sequence_ends_and_is_no_text(says, end):
    result = says("done", after=end).generate("a")
    assert result.text == "done"
    assert result.token_ids[-1] == end
    assert result.finish_reason == "stop"


def test_every_token_is_fed_once(says):
    generator = says("xyz")
    result = generator.generate("ab")
    assert generator.decoder.fed == [generator.tokenizer.encode("ab"), *([i] for i in result.token_ids[:-1])]


@pytest.mark.parametrize("stop", ["\nUser:", ["Bot:", "\nUser:"], ("r:", "\nUser")])
def test_stop_strings_end_the_text_before_them(says, stop):
    generator = says("Hello\nUser: and more")
    result = generator.generate("a", stop=stop)
    assert result.text == "Hello"
    assert result.finish_reason == "stop"
    assert len(generator.decoder.fed) < len("Hello\nUser: and")


def test_stop_string_in_bytes_of_characters(says):
    assert says("1 € 2 €uro").generate("a", stop="€u").text == "1 € 2 "


def test_pieces_are_whole_characters_without_beginnings_of_stop_strings(says):
    stream = says("a🙂 b\nUse c\nUser: d").stream("x", GenerationOptions(stop=("\nUser:",)))
    pieces = list(stream)
    assert pieces == ["a", "🙂", " ", "b", "\nUse ", "c"]
    assert "".join(pieces) == stream.result.text


def test_text_held_for_a_stop_string_comes_at_the_end(says):
    assert says("so Us").generate("a", stop="User").text == "so Us"


def test_half_a_character_at_the_limit_is_marked(says):
    result = says("a🙂").generate("x", max_new_tokens=3)
    assert result.text == "a\N{REPLACEMENT CHARACTER}"
    assert result.finish_reason == "length"


def test_one_token_has_no_rate(says):
    result = says("ab").generate("x", max_new_tokens=1)
    assert result.tokens_per_second is None
    assert result.time_to_first_token_ms is not None


def test_interrupt_returns_what_there_is(says):
    result = says("so far Us", after=KeyboardInterrupt).generate("a", stop="User", logprobs=True)
    assert result.text == "so far Us"
    assert result.finish_reason == "interrupted"
    assert len(result.token_ids) == len(result.logprobs) == 9


def test_interrupt_before_the_first_token(says):
    result = says("", after=KeyboardInterrupt).generate("a")
    assert (result.text, result.token_ids, result.time_to_first_token_ms) == ("", (), None)


def test_stream_can_be_left(says):
    stream = says("abcdef").stream("x", GenerationOptions(stop=("bz",)))
    assert next(stream) == "a"
    stream.close()
    assert list(stream) == []
    assert stream.result.text == "a"
    assert stream.result.finish_reason == "interrupted"


def test_a_new_stream_ends_the_one_before(generator):
    first = generator.stream("a", GenerationOptions(sampling=SamplingOptions(1.0, seed=0), max_new_tokens=30))
    next(first)
    generator.generate("b", max_new_tokens=2)
    assert list(first) == []
    assert first.result.finish_reason == "interrupted"


def test_chat_uses_the_template(says):
    generator = says("hi")
    generator.generate("hello", chat=True)
    prompt = generator.decoder.fed[0]
    assert generator.tokenizer.decode(prompt) == "[user]hello[assistant]"
    generator.generate([{"role": "system", "content": "be nice"}, {"role": "user", "content": "hello"}], chat=True)
    assert generator.tokenizer.decode(generator.decoder.fed[0]) == "[system]be nice[user]hello[assistant]"


def test_base_model_refuses_chat(tmp_path):
    generator = Generator(Bundle.open(write_bundle(tmp_path / "base", template=None)))
    with pytest.raises(OptionError, match="no chat template"):
        generator.generate("hello", chat=True)


def test_messages_need_chat(generator):
    with pytest.raises(OptionError, match="chat=True"):
        generator.generate([{"role": "user", "content": "hello"}])


def test_context_is_checked_before_anything_runs(generator):
    with pytest.raises(OptionError, match=rf"6 prompt tokens \+ {MAX_POSITIONS} new tokens"):
        generator.generate("hello", max_new_tokens=MAX_POSITIONS)
    assert generator.generate("hello", max_new_tokens=MAX_POSITIONS - 6, temperature=1.0, seed=0).token_ids


@pytest.mark.parametrize(
    "fields", [{"max_new_tokens": 0}, {"stop": [""]}, {"top_k": 3}, {"temperature": -1.0}], ids=str
)
def test_options_are_checked(generator, fields):
    with pytest.raises(OptionError):
        generator.generate("hello", **fields)


def test_prompt_without_tokens_is_refused(generator, monkeypatch):
    monkeypatch.setattr(generator.tokenizer, "encode", lambda text: [])
    with pytest.raises(OptionError, match="no tokens"):
        generator.generate("")


def test_foreign_tokenizer_is_noticed(bundle, generator):
    generator.bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, vocab_size=50))
    with pytest.raises(BundleError, match="ids below 50"):
        generator.generate("hello")


@pytest.mark.parametrize(("fields", "guess"), [({"head": "two_stage"}, "two-stage"), ({"runtime": "onnx"}, "onnxr")])
def test_unknown_names_are_refused_with_a_guess(bundle, fields, guess):
    with pytest.raises(OptionError, match=guess):
        Generator(bundle, **fields)


def test_bundle_without_body_is_refused(tmp_path):
    with pytest.raises(BundleError, match="no body"):
        Generator(Bundle.open(write_bundle(tmp_path / "head-only", has_body=False)))


def test_spoilt_weights_are_noticed(tmp_path):
    generator = Generator(Bundle.open(write_bundle(tmp_path / "nan", shift=float("nan"))))
    with pytest.raises(BundleError, match="not finite"):
        generator.generate("hello")


def test_a_gpu_leaves_the_arithmetic_of_shapes_to_the_processor(bundle, monkeypatch):
    """ONNX Runtime does so by itself, and refuses to where the processor is not among the providers."""
    cuda = next(item for item in CANDIDATES if item.name == "onnxruntime-cuda")
    monkeypatch.setattr("flashhead_edge.generator.select", lambda *_, **__: Choice(cuda, True, True, "there is one"))
    with pytest.raises(RuntimeUnavailableError, match="export the model again"):  # the bundle has no form for GPUs
        Generator(bundle)
    manifest = bundle.manifest
    graphs = {**manifest.graphs, "decode_cuda": manifest.graphs["decode"]}
    with_form = dataclasses.replace(bundle, manifest=dataclasses.replace(manifest, graphs=graphs))
    opened = []
    monkeypatch.setattr("flashhead_edge.generator.Decoder", lambda *_, **options: opened.append(options["providers"]))
    assert Generator(with_form).runtime_reason == "there is one"
    assert opened == [("CUDAExecutionProvider", "CPUExecutionProvider")]
