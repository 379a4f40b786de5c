"""The tokens and merges of a tokenizer as a table in a file, of which a program reads what its texts need.

A tokenizer of byte-pair encoding makes tokens of a text by joining neighbours, so every token that it makes on the way
is part of the text. Of a vocabulary of 262,144 tokens a short prompt holds a few hundred; the others cannot matter to
it. The table finds them: it keeps a hash of every token, and the hashes of all parts of a text of one length follow
from sums over the text (Karp and Rabin, "Efficient randomized pattern-matching algorithms", IBM J. Res. Dev. 31, 1987).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import BundleError
from flashhead_edge.tensor_files import map_tensors, write_tensors

Ids = npt.NDArray[np.integer[Any]]
_UInt64 = npt.NDArray[np.uint64]

#: Bits of ``added_flags``, as ``tokenizer.json`` names what they say.
ADDED_FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")
#: Between texts that are looked through together: a byte that UTF-8 does not have.
_SEPARATOR = b"\xff"


class RollingHash:
    """Hashes of parts of a text: 32 bits each, equal for equal bytes.

    Args:
        data: [N] uint8, the text.
        base: An odd number below 2^64; the hash of bytes b is the upper half of the sum of ``b[j] * base^(j + 1)``.
    """

    def __init__(self, data: npt.NDArray[np.uint8], base: int) -> None:
        powers = np.full(len(data), base, np.uint64).cumprod(dtype=np.uint64)
        inverse = np.full(len(data) + 1, pow(base, -1, 1 << 64), np.uint64)
        inverse[0] = 1
        self._sums: _UInt64 = np.concatenate([np.zeros(1, np.uint64), (data * powers).cumsum(dtype=np.uint64)])
        self._inverse_powers: _UInt64 = inverse.cumprod(dtype=np.uint64)

    def parts(self, first: Any, last: Any) -> npt.NDArray[np.uint32]:
        """Hashes of the bytes between some positions and others: [M] uint32; positions may be slices."""
        sums: _UInt64 = self._sums[last] - self._sums[first]
        upper: npt.NDArray[np.uint32] = (sums * self._inverse_powers[first] >> np.uint64(32)).astype(np.uint32)
        return upper


@dataclass(frozen=True)
class TokenTable:
    """A tokenizer of byte-pair encoding, its large lists as arrays.

    Attributes:
        rules: ``tokenizer.json`` without tokens and merges.
        base: Of the hashes.
        text: UTF-8 of all tokens in the order of their ids, [N] uint8.
        lengths: Bytes of every id's token, [V]; 0 for ids without one.
        order: Ids by length, and then by hash, [tokens] int32.
        hashes: Their hashes, [tokens] uint32.
        merge_counts: How many merges make each id's token, [V].
        merge_ranks: Place of a merge among all merges, [merges] uint32, in the order of what they make.
        merge_splits: Bytes of its first part, [merges].
        added_ids: Tokens that are recognised before the merges, in the order of ``tokenizer.json``, [A] int32.
        added_flags: What is said of them, a bit for each of ``ADDED_FLAGS``, [A] uint8.
    """

    rules: Mapping[str, Any]
    base: int
    text: npt.NDArray[np.uint8]
    lengths: Ids
    order: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint32]
    merge_counts: Ids
    merge_ranks: npt.NDArray[np.uint32]
    merge_splits: Ids
    added_ids: npt.NDArray[np.int32]
    added_flags: npt.NDArray[np.uint8]

    ARRAYS = (
        "text",
        "lengths",
        "order",
        "hashes",
        "merge_counts",
        "merge_ranks",
        "merge_splits",
        "added_ids",
        "added_flags",
    )

    @classmethod
    def open(cls, path: Path, tokenizer: Path) -> TokenTable:
        """Map a table.

        Args:
            path: The table's file.
            tokenizer: The ``tokenizer.json`` that it was made of.

        Raises:
            BundleError: The file is damaged, or was made of another ``tokenizer.json``.
        """
        tensors, metadata = map_tensors(path)
        try:
            facts = json.loads(metadata["tokenizer"])
            table = cls(facts["rules"], facts["base"], **{name: tensors[name] for name in cls.ARRAYS})
            made_of = facts["bytes"]
        except (KeyError, ValueError) as error:
            raise BundleError(f"{path.name} is no token table.", found=repr(error), hint="export again") from error
        if not table._fits():
            raise BundleError(f"{path.name}: its tensors do not fit each other.", hint="export again")
        if made_of != tokenizer.stat().st_size:
            raise BundleError(
                f"{path.name} was made of another {tokenizer.name}.",
                found=f"{tokenizer.stat().st_size} bytes",
                expected=f"{made_of} bytes",
                hint="export the bundle again",
            )
        return table

    def save(self, path: Path, tokenizer: Path) -> None:
        """Write the table; the arguments are those of :meth:`open`."""
        facts = {"rules": self.rules, "base": self.base, "bytes": tokenizer.stat().st_size}
        metadata = {"tokenizer": json.dumps(facts, ensure_ascii=False, separators=(",", ":"))}
        write_tensors(path, {name: getattr(self, name) for name in self.ARRAYS}, metadata)

    def _fits(self) -> bool:
        """Whether lists that belong together are equally long, and ids are in range."""
        count, ids = len(self.lengths), (self.order, self.added_ids)
        return (
            len(self.text) == int(self.lengths.sum(dtype=np.int64))
            and len(self.hashes) == len(self.order) == np.count_nonzero(self.lengths)
            and len(self.merge_counts) == count
            and len(self.merge_splits) == len(self.merge_ranks) == int(self.merge_counts.sum(dtype=np.int64))
            and len(self.added_flags) == len(self.added_ids)
            and all(not len(part) or (part.min() >= 0 and part.max() < count) for part in ids)
        )

    @cached_property
    def _starts(self) -> npt.NDArray[np.uint32]:
        return np.concatenate([np.zeros(1, np.uint32), np.cumsum(self.lengths, dtype=np.uint32)])

    @cached_property
    def _merge_starts(self) -> npt.NDArray[np.uint32]:
        return np.concatenate([np.zeros(1, np.uint32), np.cumsum(self.merge_counts, dtype=np.uint32)])

    @cached_property
    def _groups(self) -> list[tuple[int, int, int]]:
        """Lengths of tokens, and where the tokens of each begin and end in ``order``."""
        counts = np.bincount(self.lengths)
        ends = np.cumsum(counts[1:])
        return [(n, int(end - counts[n]), int(end)) for n, end in enumerate(ends, 1) if counts[n]]

    def _bytes(self, token_id: int) -> bytes:
        """The token of an id that has one, in UTF-8."""
        return self.text[self._starts[token_id] : self._starts[token_id + 1]].tobytes()

    def _is(self, flag: str) -> npt.NDArray[np.bool_]:
        """Of which added tokens something is said, [A]."""
        found: npt.NDArray[np.bool_] = (self.added_flags & 1 << ADDED_FLAGS.index(flag)) != 0
        return found

    def token(self, token_id: int) -> str | None:
        """The token of an id as the tokenizer writes it; None for an id without one."""
        if not 0 <= token_id < len(self.lengths) or not self.lengths[token_id]:
            return None
        return self._bytes(token_id).decode()

    def occurring(self, texts: Iterable[str]) -> list[int]:
        """Tokens that are part of one of some texts.

        Returns:
            Their ids, ascending; by chance, in one of some thousand million cases, one that is no part of them.
        """
        joined = np.frombuffer(_SEPARATOR.join(text.encode() for text in texts), np.uint8)
        hashed = RollingHash(joined, self.base)
        found: set[int] = set()
        for length, first, last in self._groups:
            if length > len(joined):
                break
            wanted = hashed.parts(slice(len(joined) - length + 1), slice(length, None))
            there = self.hashes[first:last]
            places = np.minimum(np.searchsorted(there, wanted), len(there) - 1)
            found.update(self.order[first:last][places[there[places] == wanted]].tolist())
        return sorted(found)

    def merges(self, token_ids: Sequence[int]) -> list[tuple[str, str]]:
        """Merges that make some tokens of one another, first things first.

        Args:
            token_ids: Ids of the tokens.
        """
        tokens = {token_id: self._bytes(token_id) for token_id in token_ids}
        known = frozenset(tokens.values())
        ranked = []
        for token_id, token in tokens.items():
            for merge in range(self._merge_starts[token_id], self._merge_starts[token_id + 1]):
                split = self.merge_splits[merge]
                parts = token[:split], token[split:]
                if known.issuperset(parts):
                    ranked.append((self.merge_ranks[merge], *parts))
        return [(first.decode(), second.decode()) for _, first, second in sorted(ranked)]

    def added_tokens(self, token_ids: Iterable[int]) -> list[dict[str, Any]]:
        """Added tokens that a text may hold, as ``tokenizer.json`` has them.

        Args:
            token_ids: Tokens that occur in the text; of the tokens that are compared with the normalized text all are
                given.
        """
        chosen = np.flatnonzero(self._is("normalized") | np.isin(self.added_ids, np.array(list(token_ids), np.int32)))
        return [
            {
                "id": int(self.added_ids[place]),
                "content": self.token(self.added_ids[place]),
                **{name: bool(self.added_flags[place] >> bit & 1) for bit, name in enumerate(ADDED_FLAGS)},
            }
            for place in chosen
        ]

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that are left out of texts."""
        return frozenset(self.added_ids[self._is("special")].tolist())
