"""Text to token ids and back, whole or a token at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from flashhead_edge import layout
from flashhead_edge.chat import ChatTemplate
from flashhead_edge.errors import OptionError
from flashhead_edge.tokenizer_backends import open_backend

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Tokenizer:
    """The tokenizer of a model, from the files of its bundle.

    Args:
        folder: Holds ``tokenizer.json`` and, for chat models, the chat template.

    Raises:
        BundleError: ``tokenizer.json`` is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._backend = open_backend(folder)
        self._folder = folder

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """The model's chat template, or None for a base model."""
        return ChatTemplate.from_folder(self._folder)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that :meth:`decode` leaves out."""
        return self._backend.special_ids

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Encode text.

        Args:
            text: Any text; special tokens written out in it are recognised.
            add_special_tokens: Add what ``tokenizer.json`` asks for, usually the BOS token.

        Returns:
            Token ids; empty for empty text where nothing is added.

        Raises:
            OptionError: The text holds half a surrogate pair, as bytes do that are not UTF-8 on a command line.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise OptionError(
                "The text is not valid Unicode.",
                found=f"{text[error.start]!a} at character {error.start}",
                expected="text in UTF-8",
            ) from error
        return self._backend.encode(text, add_special_tokens=add_special_tokens)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Encode messages through the chat template, up to the header of the assistant's turn.

        The template alone decides about special tokens, so BOS is never doubled.

        Args:
            messages: ``{"role": ..., "content": ...}`` each, oldest first.

        Returns:
            Token ids.

        Raises:
            OptionError: The model has no chat template, or it refuses the messages.
        """
        template = self.chat_template
        if template is None:
            raise OptionError(
                "This model has no chat template.",
                found=f"neither {layout.CHAT_TEMPLATE} nor a chat_template in {layout.TOKENIZER_CONFIG}",
                expected="an instruction-tuned model",
                hint="generate without chat: base models continue the prompt as it is",
            )
        return self.encode(template.render(messages), add_special_tokens=False)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decode ids to text without special tokens; bytes that are not UTF-8 become U+FFFD."""
        return self._backend.decode(token_ids)

    def is_partial(self, token_id: int) -> bool:
        """Whether the token is a lone byte, whose text depends on its neighbours."""
        token = self._backend.token(token_id)
        return token is not None and _BYTE_TOKEN.fullmatch(token) is not None

    def is_silent(self, token_id: int) -> bool:
        """Whether :meth:`decode` passes over the token: special, or not in the vocabulary."""
        return token_id in self.special_ids or self._backend.token(token_id) is None


class StreamDecoder:
    """Decodes token by token; the pieces together are exactly the text of all tokens at once.

    A piece never ends in half a character: while the last tokens are incomplete UTF-8, or a run of byte tokens
    (which a tokenizer decodes as a whole), their text is held back until more tokens or :meth:`flush` settle it.

    Args:
        tokenizer: Decodes the ids.
        window: Tokens to keep as context; the cost of a step grows with it.
    """

    def __init__(self, tokenizer: Tokenizer, *, window: int = 8) -> None:
        self._tokenizer = tokenizer
        self._window = window
        self._ids: list[int] = []
        self._emitted = 0

    def push(self, token_id: int) -> str:
        """Take one more token.

        Args:
            token_id: What was generated.

        Returns:
            The text that is now certain, possibly empty.
        """
        self._ids.append(token_id)
        if self._tokenizer.is_silent(token_id):
            return ""  # a run of bytes goes on across tokens that decode to nothing
        if self._tokenizer.is_partial(token_id):
            return ""  # one byte that does not fit would turn the whole run into U+FFFD
        text = self._tokenizer.decode(self._ids)
        certain = len(text.rstrip(_REPLACEMENT))
        piece = text[self._emitted : certain]
        self._emitted = max(self._emitted, certain)
        if certain == len(text) and len(self._ids) >= 2 * self._window:
            self._forget(text)
        return piece

    def flush(self) -> str:
        """Give up waiting: return what was held back, incomplete characters as U+FFFD."""
        text = self._tokenizer.decode(self._ids)
        piece = text[self._emitted :]
        self._emitted = max(self._emitted, len(text))
        return piece

    def _forget(self, text: str) -> None:
        """Shorten the context where that provably changes nothing.

        Some tokenizers strip the first token's space, so the remaining context must decode to the end of the text
        it replaces and hold more than spaces; otherwise the context stays and grows by one until it does.
        """
        kept = self._ids[-self._window :]
        kept_text = self._tokenizer.decode(kept)
        if kept_text.strip() and text.endswith(kept_text):
            self._ids = kept
            self._emitted = len(kept_text)
