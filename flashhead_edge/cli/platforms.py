"""``flashhead-edge platforms``: the catalogue of platforms as a table, one platform in full, or either as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from flashhead_edge.platforms.catalog import Catalog, Platform

_Command = TypeVar("_Command", bound=Callable[..., Any])

_UNKNOWN = "-"
_NAME_WIDTH = 26
_COLUMNS = ("platform", "family", "SM", "memory", "GB/s", "int8 TOPS", "precisions", "runtimes")
#: Words and units of the fields whose names carry a unit.
_LABELS = {
    "memory_bytes": ("memory", ""),
    "memory_bandwidth_gb_s": ("memory bandwidth", "GB/s"),
    "peak_int8_dense_tops": ("peak int8, dense", "TOPS"),
    "peak_int8_sparse_tops": ("peak int8, sparse", "TOPS"),
    "peak_fp16_dense_tflops": ("peak fp16, dense", "TFLOPS"),
    "peak_fp16_sparse_tflops": ("peak fp16, sparse", "TFLOPS"),
    "peak_fp4_sparse_tflops": ("peak fp4, sparse", "TFLOPS"),
    "max_power_watts": ("greatest power", "W"),
}


def _file_and_json(command: _Command) -> _Command:
    """The options that the group and its commands share."""
    extra = click.option(
        "--file", "files", type=click.Path(path_type=Path), multiple=True, help="A TOML file with more platforms."
    )
    return click.option("--json", "as_json", is_flag=True, help="Print only JSON.")(extra(command))


@click.group("platforms", invoke_without_command=True, short_help="Show the platforms that are known.")
@_file_and_json
@click.pass_context
def platforms_command(context: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Show the platforms that are known: what each has, where that is written, and our settings for it.

    Without a command it lists them.
    """
    context.obj = (files, as_json)
    if context.invoked_subcommand is None:
        context.invoke(list_command)


@platforms_command.command("list", short_help="Show all platforms as a table.")
@_file_and_json
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@click.pass_context
def list_command(
    context: click.Context, files: tuple[Path, ...] = (), as_json: bool = False, markdown: bool = False
) -> None:
    """Show all platforms as a table; "-" is what is unknown or has no meaning there."""
    catalog, as_json = _catalog(context, files, as_json)
    if as_json:
        report = {"platforms": [platform.as_dict() for platform in catalog.platforms.values()]}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    rows = table_rows(catalog.platforms.values())
    click.echo(markdown_table(rows) if markdown else _text_table(rows))


@platforms_command.command("show", short_help="Show one platform in full.")
@click.argument("name")
@_file_and_json
@click.pass_context
def show_command(context: click.Context, name: str, files: tuple[Path, ...], as_json: bool) -> None:
    """Show one platform in full, with the source of every figure."""
    catalog, as_json = _catalog(context, files, as_json)
    platform = catalog.find(name)
    click.echo(json.dumps(platform.as_dict(), indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(platform)))


def table_rows(platforms: Iterable[Platform]) -> list[tuple[str, ...]]:
    """The table of platforms, its head first.

    Args:
        platforms: What to list.

    Returns:
        Rows of texts. "int8 TOPS" is the dense peak.
    """
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for platform in platforms:
        memory = platform.memory_bytes
        rows.append(
            (
                platform.name,
                platform.family,
                platform.compute_capability or _UNKNOWN,
                _UNKNOWN if memory is None else f"{memory / 2**30:.0f} GiB",
                _number(platform.memory_bandwidth_gb_s),
                _number(platform.peak_int8_dense_tops),
                " ".join(platform.precisions) or _UNKNOWN,
                " ".join(platform.runtimes) or _UNKNOWN,
            )
        )
    return rows


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the head first, as a Markdown table."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def _catalog(context: click.Context, files: tuple[Path, ...], as_json: bool) -> tuple[Catalog, bool]:
    """The catalogue with all files that the group and the command were given, and whether either wants JSON."""
    from flashhead_edge.platforms.catalog import load_catalog

    group_files, group_json = context.obj
    return load_catalog((*group_files, *files)), as_json or group_json


def _text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows with columns under each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _lines(platform: Platform) -> list[str]:
    """A platform for people: its facts, our settings, then where each fact is written."""
    facts = platform.as_dict()
    sources, notes, jetpacks = facts.pop("sources"), facts.pop("notes"), facts.pop("jetpacks")
    lines = [f"{platform.name}: {facts.pop('title')}", ""]
    facts.pop("name")
    for name, value in facts.items():
        label, unit = _label(name)
        lines.append(f"{label:<{_NAME_WIDTH}}{_value(name, value, unit)}")
    for release in jetpacks:
        text = f"CUDA {release['cuda'] or _UNKNOWN}, TensorRT {release['tensorrt'] or _UNKNOWN}"
        lines.append(f"{'JetPack ' + release['version']:<{_NAME_WIDTH}}{text}")
    if notes:
        lines.append(f"{'notes':<{_NAME_WIDTH}}{notes}")
    if sources:
        lines += ["", "sources", *(f"  {_label(name)[0]}: {source}" for name, source in sources.items())]
    return lines


def _label(name: str) -> tuple[str, str]:
    """Words for a field, and the unit of its values."""
    return _LABELS.get(name, (name.replace("_", " "), ""))


def _value(name: str, value: Any, unit: str) -> str:
    """A value in words."""
    if value is None or value in ([], {}):
        return _UNKNOWN
    if name == "memory_bytes":
        return f"{value / 2**30:g} GiB"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_setting(setting)}" for key, setting in value.items())
    return ", ".join(value) if isinstance(value, list) else f"{_setting(value)} {unit}".rstrip()


def _number(value: float | None) -> str:
    """A figure without needless zeros."""
    return _UNKNOWN if value is None else f"{value:g}" if value < 100_000 else f"{value:,.0f}"


def _setting(value: object) -> str:
    """A setting as TOML writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
