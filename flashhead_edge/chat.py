"""Chat templates: messages to the prompt text that an instruction-tuned model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from flashhead_edge import layout
from flashhead_edge.errors import BundleError, OptionalDependencyError, OptionError

if TYPE_CHECKING:
    from jinja2 import Template

_SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja chat template with the special tokens that it may name.

    Templates come with the model and are not trusted: they run in Jinja's immutable sandbox, see only strings,
    lists and dictionaries, and have no loader. The environment is the one that transformers gives to templates.

    Attributes:
        source: The Jinja text.
        special_tokens: ``bos_token``, ``eos_token``, ... as text.
    """

    source: str
    special_tokens: Mapping[str, str]

    @classmethod
    def from_folder(cls, folder: Path) -> ChatTemplate | None:
        """Read the template of a tokenizer folder.

        Args:
            folder: Holds ``chat_template.jinja`` or a ``tokenizer_config.json`` with ``chat_template``.

        Returns:
            The template, or None for a model that was not trained on chats.

        Raises:
            BundleError: ``tokenizer_config.json`` is not a JSON object.
        """
        config = _read_config(folder / layout.TOKENIZER_CONFIG)
        file = folder / layout.CHAT_TEMPLATE
        source = file.read_text(encoding="utf-8") if file.is_file() else _default_template(config.get("chat_template"))
        return None if source is None else cls(source, _special_tokens(config))

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Turn messages into the prompt.

        Args:
            messages: ``{"role": ..., "content": ...}`` each, oldest first.
            add_generation_prompt: End with the header of the assistant's turn.

        Returns:
            The prompt with its special tokens written out: encode it without adding them again.

        Raises:
            OptionError: The template refuses the messages.
            OptionalDependencyError: Jinja is not installed.
        """
        template = self._compiled
        from jinja2.exceptions import TemplateError

        try:
            return template.render(
                **self.special_tokens,
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
            )
        except (TemplateError, TypeError) as error:
            raise OptionError(
                "The model's chat template refused the messages.",
                found=f"{type(error).__name__}: {error}",
                hint="check the roles and their order, or generate without chat",
            ) from error

    @cached_property
    def _compiled(self) -> Template:
        """The template, compiled in the environment that transformers gives it."""
        try:
            from jinja2.exceptions import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as error:
            raise OptionalDependencyError("jinja2", "cpu", "The chat template") from error
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["strftime_now"] = _strftime_now

        def raise_exception(message: str) -> NoReturn:
            raise TemplateError(message)

        environment.globals["raise_exception"] = raise_exception
        try:
            return environment.from_string(self.source)
        except TemplateError as error:
            raise BundleError(
                "The chat template of the bundle is not valid.",
                found=f"{type(error).__name__}: {error}",
                hint="generate without chat, or export the model again from a source with a good template",
            ) from error


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON without Jinja's HTML escapes, as models were trained on it."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(format: str) -> str:  # noqa: A002 - templates may pass it by name
    """Format the local time, for templates that state the date."""
    return datetime.now().astimezone().strftime(format)


def _read_config(file: Path) -> dict[str, Any]:
    """Read tokenizer_config.json; absent is empty."""
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{file.name} is not JSON.", found=error, hint="export the bundle again") from error
    if not isinstance(config, dict):
        raise BundleError(f"{file.name} is not a JSON object.", found=type(config).__name__, expected="an object")
    return config


def _default_template(entry: object) -> str | None:
    """Choose the template in tokenizer_config.json: text, or a list of named ones."""
    if isinstance(entry, list):
        named = {item.get("name"): item.get("template") for item in entry if isinstance(item, dict)}
        entry = named.get("default")
    return entry if isinstance(entry, str) else None


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Read the named special tokens, written as text or as ``{"content": text}``."""
    tokens = {}
    for name in _SPECIAL_TOKEN_NAMES:
        entry = config.get(name)
        if isinstance(entry, dict):
            entry = entry.get("content")
        if isinstance(entry, str):
            tokens[name] = entry
    return tokens
