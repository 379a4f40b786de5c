"""Options of ``generate`` that choose tokens, and what their texts mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flashhead_edge.errors import OptionError

if TYPE_CHECKING:
    from flashhead_edge.tokenizer import Tokenizer

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SAMPLING = (
    click.option("--temperature", type=float, default=0.0, show_default=True, help="0 is greedy, 1 the model's own."),
    click.option("--top-k", type=int, default=0, show_default=True, help="Keep the k likeliest tokens; 0 keeps all."),
    click.option("--top-p", type=float, default=1.0, show_default=True, help="Keep the likeliest up to this sum."),
    click.option("--min-p", type=float, default=0.0, show_default=True, help="Keep this likely against the best."),
    click.option("--typical-p", type=float, default=1.0, show_default=True, help="Keep tokens of expected surprise."),
    click.option("--seed", type=int, help="Make the draws repeatable."),
    click.option("--repetition-penalty", type=float, default=1.0, show_default=True, help="Above 1: repeat less."),
    click.option("--presence-penalty", type=float, default=0.0, show_default=True, help="Less of what has come."),
    click.option("--frequency-penalty", type=float, default=0.0, show_default=True, help="The same, each time."),
    click.option("--logit-bias", multiple=True, metavar="ID=NUMBER", help="Add to a token's logit; repeatable."),
    click.option("--allowed-ids", metavar="IDS", help="The only tokens that may come, such as 5,7,100-199."),
    click.option("--bad-words", multiple=True, metavar="TEXT", help="A text that may not come; repeatable."),
    click.option("--min-tokens", type=int, default=0, show_default=True, help="Least length before an end."),
)
_CONSTRAINTS = (
    click.option("--regex", metavar="PATTERN", help="The text must match this regular expression."),
    click.option("--json-schema", metavar="JSON|FILE", help="The text must be JSON of this schema."),
    click.option("--choice", multiple=True, metavar="TEXT", help="The text must be one of these; repeatable."),
    click.option(
        "--grammar", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A Lark grammar's file."
    ),
)


def sampling_options(command: _Command) -> _Command:
    """Options that fill ``SamplingOptions``."""
    return _decorate(command, _SAMPLING)


def constraint_options(command: _Command) -> _Command:
    """Options of which one makes a constraint."""
    return _decorate(command, _CONSTRAINTS)


def sampling_keywords(options: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Keywords of ``GenerationOptions.of`` from the options of both groups; used options are taken out.

    Args:
        options: Options of the command by name.
        tokenizer: Turns bad words into tokens.

    Raises:
        OptionError: A text is not what its option takes.
    """
    keywords = {name: options.pop(name) for name in _names(_SAMPLING)}
    keywords["logit_bias"] = dict(_bias(item) for item in keywords["logit_bias"])
    ids = keywords["allowed_ids"]
    keywords["allowed_ids"] = None if ids is None else tuple(_ids(ids))
    # As vLLM does: a word inside a text begins with a space, and at its beginning without one.
    forms = [form for word in keywords["bad_words"] for form in dict.fromkeys((word, f" {word.lstrip()}"))]
    keywords["bad_words"] = tuple(tuple(tokenizer.encode(form, add_special_tokens=False)) for form in forms)
    constraints = {name: value for name in _names(_CONSTRAINTS) if (value := options.pop(name))}
    if "grammar" in constraints:
        constraints["grammar"] = constraints["grammar"].read_text(encoding="utf-8")
    schema = constraints.get("json_schema", "")
    if schema and not schema.lstrip().startswith(("{", "true", "false")):
        constraints["json_schema"] = Path(schema).read_text(encoding="utf-8")
    return keywords | constraints


def _decorate(command: _Command, options: Iterable[Callable[[_Command], _Command]]) -> _Command:
    for option in reversed(list(options)):
        command = option(command)
    return command


def _names(options: Iterable[Callable[..., Any]]) -> list[str]:
    """Names of the parameters that options make."""

    def probe() -> None: ...

    for option in options:
        option(probe)
    return [parameter.name for parameter in probe.__click_params__]  # type: ignore[attr-defined]


def _bias(text: str) -> tuple[int, float]:
    token, separator, number = text.partition("=")
    try:
        if separator:
            return int(token), float(number)
    except ValueError:
        pass
    raise OptionError("A logit bias is a token and a number.", found=text, expected="such as 42=-1.5")


def _ids(text: str) -> Iterable[int]:
    for part in text.split(","):
        first, separator, last = part.strip().partition("-")
        if not (first.isdigit() and (last.isdigit() if separator else True)):
            raise OptionError("These are no token ids.", found=part, expected="numbers and ranges such as 5,7,100-199")
        yield from range(int(first), int(last or first) + 1)
