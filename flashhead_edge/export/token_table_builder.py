"""The token table of a bundle, made of its ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout
from flashhead_edge.token_table import ADDED_FLAGS, RollingHash, TokenTable

#: Options of byte-pair encoding under which a token made on the way is not simply a part of the text.
_UNSUITED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
#: Bases to try: odd, of well mixed bits (2^64 divided by the golden ratio, and what follows).
_FIRST_BASE, _BASES = 0x9E3779B97F4A7C15, 64


def write_token_table(folder: Path) -> bool:
    """Write the token table beside a ``tokenizer.json``; whether the tokenizer can be one."""
    table = build_token_table(folder / layout.TOKENIZER)
    if table is not None:
        table.save(folder / layout.TOKEN_TABLE, folder / layout.TOKENIZER)
    return table is not None


def build_token_table(tokenizer: Path) -> TokenTable | None:
    """Make the token table of a ``tokenizer.json``.

    Args:
        tokenizer: The file.

    Returns:
        The table; None for tokenizers that it cannot stand for: of another model than byte-pair encoding, with marks at
        the ends of words or random merges, or with tokens that contradict each other.
    """
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    model, added = content["model"], content.get("added_tokens", [])
    if model.get("type") != "BPE" or any(model.get(option) for option in _UNSUITED):
        return None
    tokens = dict(model["vocab"])
    for token in added:
        tokens.setdefault(token["content"], token["id"])
    if "" in tokens or len({*tokens.values()}) != len(tokens) or any(tokens[t["content"]] != t["id"] for t in added):
        return None
    texts = [b""] * (max(tokens.values()) + 1)
    for text, token_id in tokens.items():
        texts[token_id] = text.encode()
    lengths = np.array([len(text) for text in texts])
    joined = np.frombuffer(b"".join(texts), np.uint8)
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    ordered = _order(joined, lengths)
    if ordered is None:
        return None
    base, order, hashes = ordered
    made = np.array([tokens[first + second] for first, second in merges], np.int64)
    ranks = np.argsort(made, kind="stable")
    splits = np.array([len(first.encode()) for first, _ in merges], np.int64)
    return TokenTable(
        rules={**content, "truncation": None, "padding": None, "added_tokens": [], "model": _without_lists(model)},
        base=base,
        text=joined,
        lengths=_narrow(lengths),
        order=order.astype(np.int32),
        hashes=hashes,
        merge_counts=_narrow(np.bincount(made, minlength=len(lengths))),
        merge_ranks=ranks.astype(np.uint32),
        merge_splits=_narrow(splits[ranks]),
        added_ids=np.array([token["id"] for token in added], np.int32),
        added_flags=np.array([_flags(token) for token in added], np.uint8),
    )


def _order(
    joined: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]
) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.uint32]] | None:
    """A base by which no two tokens of one length have one hash; ids by length and hash; the hashes in that order."""
    ends = np.cumsum(lengths)
    ids = np.flatnonzero(lengths)
    for base in range(_FIRST_BASE, _FIRST_BASE + 2 * _BASES, 2):
        hashes = RollingHash(joined, base).parts(ends - lengths, ends)
        order = ids[np.lexsort((hashes[ids], lengths[ids]))]
        same = (np.diff(lengths[order]) == 0) & (np.diff(hashes[order].astype(np.int64)) == 0)
        if not same.any():
            return base, order, hashes[order]
    return None


def _without_lists(model: dict[str, Any]) -> dict[str, Any]:
    return {**model, "vocab": {}, "merges": []}


def _flags(token: dict[str, Any]) -> int:
    """What is said of an added token, as bits."""
    return sum(1 << bit for bit, name in enumerate(ADDED_FLAGS) if token[name])


def _narrow(numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Numbers in the narrowest unsigned type of 8, 16 or 32 bits that holds them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
