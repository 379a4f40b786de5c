from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from flashhead_edge import layout
from flashhead_edge.chat import ChatTemplate
from flashhead_edge.errors import BundleError, OptionalDependencyError, OptionError
from flashhead_edge.export.token_table_builder import write_token_table
from flashhead_edge.tokenizer import StreamDecoder, Tokenizer
from tests.tiny_bundle import BOS, END_OF_TURN, EOS, TEMPLATE, byte_level_tokenizer, write_tokenizer

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = ["▁", "▁a", "▁é", "b", "▁的", "\N{REPLACEMENT CHARACTER}", "▁▁", "\n", "🙂"]


def sentencepiece_tokenizer(*, strips: bool) -> Backend:
    """Bytes for unknown characters and "▁" for spaces, as Gemma (no strip) and Llama 2 (strip) have it."""
    vocab = {token: index for index, token in enumerate(["<unk>", *BYTES, *WORDS])}
    tokenizer = Backend(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strips else steps)
    tokenizer.add_special_tokens(["<bos>", "<eos>"])
    return tokenizer


def metaspace_tokenizer() -> Backend:
    vocab = {token: index for index, token in enumerate(["<unk>", *WORDS])}
    tokenizer = Backend(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<bos>", "<eos>"])
    return tokenizer


BACKENDS: dict[str, Callable[[], Backend]] = {
    "byte level": byte_level_tokenizer,
    "byte fallback": lambda: sentencepiece_tokenizer(strips=False),
    "byte fallback with strip": lambda: sentencepiece_tokenizer(strips=True),
    "metaspace": metaspace_tokenizer,
}


@pytest.fixture(scope="module", params=["read as a whole", "by table"])
def tokenizers(request, tmp_path_factory):
    loaded = {}
    for name, build in BACKENDS.items():
        folder = tmp_path_factory.mktemp("tokenizer")
        write_tokenizer(folder, build(), template=TEMPLATE)
        if request.param == "by table":
            assert write_token_table(folder)
        loaded[name] = (Tokenizer(folder), build().get_vocab_size())
    return loaded


@pytest.fixture
def tokenizer(tokenizers):
    return tokenizers["byte level"][0]


def pieces_of(tokenizer, ids, window):
    decoder = StreamDecoder(tokenizer, window=window)
    return [*(decoder.push(token_id) for token_id in ids), decoder.flush()]


@pytest.mark.parametrize("name", BACKENDS)
@given(data=st.data(), window=st.integers(1, 6))
def test_pieces_of_any_tokens_join_to_the_whole_text(tokenizers, name, data, window):
    tokenizer, size = tokenizers[name]
    ids = data.draw(st.lists(st.integers(0, size + 1), max_size=60))
    pieces = pieces_of(tokenizer, ids, window)
    assert "".join(pieces) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["byte level", "byte fallback"])
@given(text=st.text(max_size=40), window=st.integers(1, 6))
def test_pieces_of_text_are_whole_characters(tokenizers, name, text, window):
    tokenizer, _ = tokenizers[name]
    text = text.replace("\N{REPLACEMENT CHARACTER}", "").replace("▁", "")
    pieces = pieces_of(tokenizer, tokenizer.encode(text, add_special_tokens=False), window)
    assert "".join(pieces) == text
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)


def test_a_character_comes_with_its_last_byte(tokenizer):
    ids = tokenizer.encode("a🙂b", add_special_tokens=False)
    assert pieces_of(tokenizer, ids, 32) == ["a", "", "", "", "🙂", "b", ""]


def test_special_tokens_do_not_part_a_character(tokenizer):
    first, second = tokenizer.encode("é", add_special_tokens=False)
    assert pieces_of(tokenizer, [first, EOS, second], 32) == ["", "", "é", ""]


def test_half_a_character_at_the_end_is_marked(tokenizer):
    ids = tokenizer.encode("a🙂", add_special_tokens=False)[:-1]
    assert pieces_of(tokenizer, ids, 32) == ["a", "", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_context_stays_short(tokenizers):
    tokenizer, _ = tokenizers["byte fallback"]
    ids = [1 + len(BYTES) + WORDS.index("▁a")] * 500
    decoder = StreamDecoder(tokenizer, window=8)
    assert "".join(map(decoder.push, ids)) == " a" * 500
    assert len(decoder._ids) <= 16


def test_encode_adds_what_the_file_says(tokenizer):
    ids = tokenizer.encode("hi")
    assert ids[0] == BOS
    assert tokenizer.encode("hi", add_special_tokens=False) == ids[1:]
    assert tokenizer.decode(ids) == "hi"


def test_bytes_of_another_encoding_are_an_error(tokenizer):
    with pytest.raises(OptionError, match="not valid Unicode"):
        tokenizer.encode("caf\udce9")


@pytest.mark.parametrize("table", [False, True])
def test_padding_and_truncation_in_the_file_are_ignored(tmp_path, table):
    backend = byte_level_tokenizer()
    backend.enable_truncation(4)
    backend.enable_padding(length=8)
    write_tokenizer(tmp_path, backend)
    assert not table or write_token_table(tmp_path)
    assert len(Tokenizer(tmp_path).encode("longer than that")) == 1 + len("longer than that")
    assert len(Tokenizer(tmp_path).encode("a")) == 2


def test_chat_template_decides_about_special_tokens(tokenizer):
    ids = tokenizer.encode_chat([{"role": "user", "content": "hi"}])
    assert ids.count(BOS) == 1
    assert ids[0] == BOS
    assert END_OF_TURN in ids
    assert tokenizer.decode(ids) == "[user]hi[assistant]"


def test_base_model_cannot_chat(tmp_path):
    write_tokenizer(tmp_path, byte_level_tokenizer())
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.chat_template is None
    with pytest.raises(OptionError, match="no chat template"):
        tokenizer.encode_chat([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_missing_or_damaged_tokenizer_is_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / layout.TOKENIZER).write_text(content)
    with pytest.raises(BundleError, match="tokenizer"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize(
    "entry", [TEMPLATE, [{"name": "tools", "template": "no"}, {"name": "default", "template": TEMPLATE}]]
)
def test_template_may_stand_in_the_config(tmp_path, entry):
    config = {"bos_token": "<bos>", "chat_template": entry}
    (tmp_path / layout.TOKENIZER_CONFIG).write_text(json.dumps(config))
    template = ChatTemplate.from_folder(tmp_path)
    assert template is not None
    assert template.render([{"role": "user", "content": "hi"}]) == "<bos>[user]hi<end_of_turn>[assistant]"


@pytest.mark.parametrize("content", ["[]", "{"])
def test_damaged_config_is_an_error(tmp_path, content):
    (tmp_path / layout.TOKENIZER_CONFIG).write_text(content)
    with pytest.raises(BundleError, match="tokenizer_config"):
        ChatTemplate.from_folder(tmp_path)


def render(source, content="hi"):
    return ChatTemplate(source, {"bos_token": "<s>"}).render([{"role": "user", "content": content}])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% if true %}\n  a\n{% endif %}\n", "  a\n"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "<é>"}]'),
        ("{% for m in messages %}{% if true %}{% break %}{% endif %}x{% endfor %}.", "."),
        ("{{ bos_token }}{{ eos_token }}{{ tools is none }}", "<s>True"),
        ("{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}", "2"),
    ],
    ids=["blocks trimmed", "tojson without escapes", "loop controls", "special tokens", "namespace"],
)
def test_template_environment(source, expected):
    assert render(source, "<é>") == expected


def test_template_can_tell_the_date():
    assert render("{{ strftime_now('%Y') }}").isdigit()


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_template_cannot_leave_the_sandbox(source):
    with pytest.raises(OptionError, match="refused"):
        render(source)


def test_broken_template_is_an_error():
    with pytest.raises(BundleError, match="not valid"):
        render("{% for %}")


def test_missing_jinja_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2.sandbox", None)
    with pytest.raises(OptionalDependencyError, match=r"flashhead-edge\[cpu\]"):
        render("hi")
