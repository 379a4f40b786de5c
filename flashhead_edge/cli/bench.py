"""``flashhead-edge bench``: decoding speed, in turn with dense heads and other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(path_type=Path)


def _numbers(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Whole numbers parted by commas; 0 stands for none, as in llama-bench."""
    try:
        return tuple(number for number in map(int, text.split(",")) if number) if text else ()
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers, such as 128,512", ctx, parameter) from None


def _list_option(*names: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that takes a list of whole numbers."""
    return click.option(*names, callback=_numbers, metavar="N,...", **options)


@click.command("bench", short_help="Measure speed against dense heads and others.")
@click.argument("bundle", type=_FILE)
@click.option(
    "-p",
    "--prompt-tokens",
    callback=_numbers,
    metavar="N,...",
    default="512",
    show_default=True,
    help="Prompts to read (pp).",
)
@click.option(
    "-n",
    "--new-tokens",
    callback=_numbers,
    metavar="N,...",
    default="128",
    show_default=True,
    help="Tokens to write (tg).",
)
@click.option(
    "-b",
    "--batch",
    "batches",
    callback=_numbers,
    metavar="N,...",
    default="1",
    show_default=True,
    help="Texts side by side.",
)
@click.option(
    "-t", "--threads", callback=_numbers, metavar="N,...", help="Threads of the operators.  [default: one a core]"
)
@click.option("--head", "heads", multiple=True, help="Measure this head; may be given more than once.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="What decodes: the processor, or an NVIDIA GPU.",
)
@click.option("-r", "--rounds", type=int, default=5, show_default=True, help="How often everything is measured.")
@click.option("--against", multiple=True, metavar="NAME=PATH", help="llama.cpp=FOLDER or onnxruntime-genai=MODEL.")
@click.option("--gguf", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The model, for llama.cpp.")
@click.option("--format", "kind", type=click.Choice(["md", "csv", "json", "jsonl"]), default="md", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("-o", "--output", type=_FILE, help="Write to this file, not to stdout.")
@click.option("--no-verify", is_flag=True, help="Do not hash the bundle's files; starts faster.")
def bench_command(
    bundle: Path,
    prompt_tokens: tuple[int, ...],
    new_tokens: tuple[int, ...],
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    heads: tuple[str, ...],
    device: str,
    rounds: int,
    against: tuple[str, ...],
    gguf: Path | None,
    kind: str,
    as_json: bool,
    output: Path | None,
    no_verify: bool,
) -> None:
    """Measure decoding speed against dense heads and other programs.

    BUNDLE is a folder made by export. Lists are parted by commas, and every combination is a row: medians over rounds
    in which everyone has its turn, the ratio to the int8 dense head in the same round, what the head adds to the body,
    and agreement with the dense fp32 head. Heads: two-stage, two-stage-portable, dense-fp32, dense-int8, dense-int4.
    """
    from flashhead_edge.bench.competitors import parse_competitor
    from flashhead_edge.bench.formats import format_rows, load_warning
    from flashhead_edge.bench.measure import run_bench
    from flashhead_edge.bench.options import DEFAULT_HEADS, BenchOptions
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.cli.progress import StageProgress
    from flashhead_edge.platforms.host import host_facts

    options = BenchOptions(
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        batches=batches,
        threads=threads or (host_facts().logical_cores,),
        heads=heads or DEFAULT_HEADS,
        rounds=rounds,
        against=[parse_competitor(text) for text in against],
        gguf=gguf,
        device=device,
    )
    opened = Bundle.open(bundle, verify=not no_verify)
    with StageProgress() as progress:
        rows = run_bench(opened, options, progress)
    kind = "json" if as_json else kind
    text = format_rows(rows, kind)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
    if kind != "md" and (warning := load_warning(rows)):
        click.echo(f"Warning: {warning}", err=True)
