"""Two ways to the ``tokenizers`` library: all of ``tokenizer.json``, or of its tokens those that a text needs."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flashhead_edge import layout
from flashhead_edge.errors import BundleError
from flashhead_edge.memory import release_freed
from flashhead_edge.token_table import TokenTable

if TYPE_CHECKING:
    import tokenizers

_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


class TokenizerBackend(Protocol):
    """What :class:`~flashhead_edge.tokenizer.Tokenizer` needs."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that texts leave out."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Ids of a text."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""

    def token(self, token_id: int) -> str | None:
        """A token as the tokenizer writes it; None for an id without one."""


def open_backend(folder: Path) -> TokenizerBackend:
    """Open the tokenizer of a bundle, by its token table where it has one.

    Raises:
        BundleError: ``tokenizer.json`` is missing, or a file is damaged.
    """
    file = folder / layout.TOKENIZER
    if not file.is_file():
        raise BundleError(
            "The bundle has no tokenizer.",
            found=f"no {file.name} in {folder}",
            hint="export the model again from a source that has its tokenizer",
        )
    table = folder / layout.TOKEN_TABLE
    return TableBackend(TokenTable.open(table, file)) if table.is_file() else WholeBackend(file)


class WholeBackend:
    """A ``tokenizer.json`` as the library reads it, all of it: docs/bench.md has what that takes of a large one.

    Args:
        file: The file.

    Raises:
        BundleError: It is damaged.
    """

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: tokenizers.Tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the Rust library raises bare Exception
            raise BundleError(f"{file.name} cannot be read.", found=error, hint="export the bundle again") from error
        # Padding and truncation that a training script left in the file must not touch prompts.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        release_freed()

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that texts leave out."""
        added = self._tokenizer.get_added_tokens_decoder()
        return frozenset(token_id for token_id, token in added.items() if token.special)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Ids of a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def token(self, token_id: int) -> str | None:
        """A token as the tokenizer writes it; None for an id without one."""
        return self._tokenizer.id_to_token(token_id)


class TableBackend:
    """The same ids and texts from a token table, without reading all of it.

    A text is encoded by a tokenizer with the tokens that occur in it: first without any merges, which gives the pieces
    that normalizer and pre-tokenizer make of it, then with those that occur in the pieces.

    Args:
        table: The table.
    """

    def __init__(self, table: TokenTable) -> None:
        self._table = table
        model = table.rules["model"]
        always = [*(_BYTES if model.get("byte_fallback") else ()), model.get("unk_token")]
        wanted = frozenset(token for token in always if token)
        self._tokens: dict[int, str | None] = {}
        self._always = [token_id for token_id in table.occurring(wanted) if self.token(token_id) in wanted]
        self._decoder = self._with_tokens(()).decoder

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that texts leave out."""
        return self._table.special_ids

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Ids of a text."""
        added = [token["id"] for token in self._table.added_tokens(self._table.occurring([text]))]
        in_pieces = self._table.occurring(self._pieces(text, added))
        tokenizer = self._with_tokens({*added, *in_pieces}, merges=True)
        return list(tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        known = [self.token(token_id) for token_id in token_ids if token_id not in self.special_ids]
        tokens = [token for token in known if token is not None]
        return " ".join(tokens) if self._decoder is None else str(self._decoder.decode(tokens))

    def token(self, token_id: int) -> str | None:
        """A token as the tokenizer writes it; None for an id without one."""
        if token_id not in self._tokens:
            self._tokens[token_id] = self._table.token(token_id)
        return self._tokens[token_id]

    def _pieces(self, text: str, added: Collection[int]) -> set[str]:
        """What the model of the tokenizer is given of a text, a piece at a time."""
        from tokenizers import pre_tokenizers

        pieces: set[str] = set()

        class Listener:
            """Stands behind the pre-tokenizer."""

            def pre_tokenize(self, found: Any) -> None:
                pieces.update(piece for piece, _, _ in found.get_splits())

        tokenizer = self._with_tokens(added)
        listener = pre_tokenizers.PreTokenizer.custom(Listener())
        own = tokenizer.pre_tokenizer
        tokenizer.pre_tokenizer = listener if own is None else pre_tokenizers.Sequence([own, listener])
        tokenizer.encode(text)
        return pieces

    def _with_tokens(self, token_ids: Collection[int], *, merges: bool = False) -> tokenizers.Tokenizer:
        """A tokenizer that knows some tokens, and those that may be needed whatever the text."""
        from tokenizers import Tokenizer

        added = self._table.added_tokens(token_ids)
        chosen = sorted({*self._always, *token_ids, *(token["id"] for token in added)})
        rules = self._table.rules
        model = {
            **rules["model"],
            "vocab": {self.token(token_id): token_id for token_id in chosen},
            "merges": self._table.merges(chosen) if merges else [],
        }
        return Tokenizer.from_str(json.dumps({**rules, "added_tokens": added, "model": model}, ensure_ascii=False))
