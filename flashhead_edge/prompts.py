"""Prompts: from a text or messages to the ids that a model is fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flashhead_edge.errors import BundleError, OptionError

if TYPE_CHECKING:
    from flashhead_edge.generation import GenerationOptions
    from flashhead_edge.tokenizer import Tokenizer

Prompt = str | Sequence[Mapping[str, str]]


def prompt_to_ids(
    prompt: Prompt, options: GenerationOptions, tokenizer: Tokenizer, *, vocab_size: int, max_positions: int
) -> list[int]:
    """Encode a prompt that fits the model's context, with options that fit its vocabulary.

    Args:
        prompt: The text to continue, or with ``options.chat`` a user's message or ``{"role", "content"}`` messages.
        options: How far to generate, and how to choose.
        tokenizer: The model's.
        vocab_size: V.
        max_positions: The model's context, in tokens.

    Returns:
        At least one id.

    Raises:
        OptionError: The prompt is empty, or does not fit the context together with the new tokens, or the options name
            tokens that the model does not have.
        BundleError: The tokenizer is another model's.
    """
    prompt_ids = _encode(prompt, tokenizer, chat=options.chat)
    if not prompt_ids:
        raise OptionError("The prompt has no tokens.", found=repr(prompt), expected="some text to continue")
    if max(prompt_ids) >= vocab_size:
        raise BundleError(
            "The tokenizer knows tokens that the model does not have.",
            found=f"token {max(prompt_ids)} in the prompt",
            expected=f"ids below {vocab_size}",
            hint="the tokenizer files are another model's: export the bundle again",
        )
    positions = len(prompt_ids) + options.max_new_tokens
    if positions > max_positions:
        raise OptionError(
            "Prompt and new tokens do not fit the model's context.",
            found=f"{len(prompt_ids)} prompt tokens + {options.max_new_tokens} new tokens = {positions}",
            expected=f"at most {max_positions}",
            hint="shorten the prompt or ask for fewer new tokens",
        )
    if wrong := [token for token in options.sampling.named_ids() if not 0 <= token < vocab_size]:
        raise OptionError(
            "The options name tokens that the model does not have.",
            found=", ".join(map(str, sorted(wrong)[:5])),
            expected=f"ids from 0 to {vocab_size - 1}",
        )
    return prompt_ids


def _encode(prompt: Prompt, tokenizer: Tokenizer, *, chat: bool) -> list[int]:
    """Encode a prompt, with or without the chat template."""
    if chat:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return tokenizer.encode_chat(messages)
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    raise OptionError("The prompt is a list of messages.", expected="text", hint="set chat=True for messages")
