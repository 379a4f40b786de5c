"""Small tokenizers of every kind that models have, trained on a few sentences."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind: it sleeps.",
    "def main(argv):\n    return 0 if len(argv) > 1 else 1\n\n\nmain([1, 2, 33333])",
    "Grüße aus Köln! Das schöne Wetter hält an, bis übermorgen.",
    "白い犬と白い猫がいる。犬は猫を見ている。 🙂🙂 🙃",
    "aaaa aaaaaaaa abababab bababa  aaaa   bbbb    a",
] * 3

#: Words that tokenizers below treat in ways of their own.
ODD = ["<bos>", "<eos>", "<tool>", "  <tool>  ", "Quick", "quick", "xquickx", " mask ", "\n\n\n", "    "]


def _trained(tokenizer: Tokenizer, alphabet: list[str], special: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=400 + len(alphabet), show_progress=False, initial_alphabet=alphabet, special_tokens=special
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def byte_level(*, ignore_merges: bool = False) -> Tokenizer:
    """As GPT-2 and Qwen have it; Llama 3 looks whole words up before it merges."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+|\s+(?!\S)|\s+|[^\s\p{L}\p{N}]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _trained(tokenizer, sorted(pre_tokenizers.ByteLevel.alphabet()), ["<bos>", "<eos>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Gemma has it: no words, "▁" for spaces, bytes for unknown characters."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _trained(tokenizer, [], ["<unk>", "<bos>", "<eos>", *byte_tokens])


def metaspace() -> Tokenizer:
    """As Llama 2 has it: a "▁" before every word, and before the text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _trained(tokenizer, [], ["<unk>", "<bos>", "<eos>"])


def lower_case() -> Tokenizer:
    """With a normalizer that changes letters, added tokens of every kind, and no decoder."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    _trained(tokenizer, [], ["<unk>", "<bos>", "<eos>"])
    tokenizer.add_tokens(
        [
            AddedToken("quick", normalized=True, single_word=True),
            AddedToken("<tool>", normalized=False, lstrip=True, rstrip=True),
            AddedToken("mask", normalized=True, lstrip=True),
        ]
    )
    return tokenizer


BYTE_PAIR: dict[str, Callable[[], Tokenizer]] = {
    "byte level": byte_level,
    "words looked up first": lambda: byte_level(ignore_merges=True),
    "byte fallback": byte_fallback,
    "metaspace": metaspace,
    "lower case": lower_case,
}


def word_level() -> Tokenizer:
    """Of another model: every word is a token."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def marked_ends() -> Tokenizer:
    """As the first GPT had it: the last part of a word is another token than the same letters within one."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=200, show_progress=False, special_tokens=["<unk>"], end_of_word_suffix="</w>"
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer
