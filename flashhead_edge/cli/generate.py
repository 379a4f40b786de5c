"""``flashhead-edge generate``: text from a bundle, as it comes or as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flashhead_edge.cli.sampling_options import constraint_options, sampling_keywords, sampling_options

if TYPE_CHECKING:
    from flashhead_edge.generation import Generation
    from flashhead_edge.generation_stream import GenerationStream

_INTERRUPTED = 130


@click.command("generate", short_help="Generate text from a bundle.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("prompt")
@click.option("--max-new-tokens", type=int, default=128, show_default=True, help="Upper limit of generated tokens.")
@sampling_options
@constraint_options
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given more than once.")
@click.option("--chat", is_flag=True, help="Send the prompt through the model's chat template.")
@click.option("--head", type=click.Choice(["two-stage", "dense", "exact"]), default="two-stage", show_default=True)
@click.option("--runtime", default="auto", show_default=True, help="auto, or a name that runtimes lists.")
@click.option(
    "--monitor",
    type=click.IntRange(min=1),
    metavar="N",
    help="Compare every N-th step with the dense head; --verbose and --json say what was found.",
)
@click.option("--num-drafts", type=int, default=0, show_default=True, help="Tokens guessed and checked at a time.")
@click.option(
    "--draft", type=click.Path(path_type=Path), metavar="BUNDLE", help="A smaller model that guesses, not the text."
)
@click.option(
    "--context-candidates", type=int, default=64, show_default=True, help="Positions whose tokens stay candidates."
)
@click.option("--threads", type=int, help="Threads of the operators.  [default: one a physical core]")
@click.option("--logprobs", is_flag=True, help="With --json: log-probabilities of the chosen tokens.")
@click.option("--top-logprobs", type=int, default=0, show_default=True, help="With --json: of so many tokens a step.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the times of prompt, steps, choices and text for ui.perfetto.dev.",
)
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object, at the end.")
@click.option("--no-verify", is_flag=True, help="Do not hash the bundle's files; starts faster.")
@click.pass_context
def generate_command(
    ctx: click.Context,
    /,
    bundle: Path,
    prompt: str,
    head: str,
    runtime: str,
    monitor: int | None,
    draft: Path | None,
    threads: int | None,
    trace: Path | None,
    as_json: bool,
    no_verify: bool,
    **options: Any,
) -> None:
    """Generate text from a bundle.

    BUNDLE is a folder made by export, PROMPT the text to continue; "-" reads it from stdin. Ctrl-C prints what there
    is and exits with 130.
    """
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.generation import GenerationOptions
    from flashhead_edge.generator import Generator
    from flashhead_edge.monitor import MonitorOptions
    from flashhead_edge.tracing import Tracer

    tracer = Tracer() if trace is not None else None
    opened = Bundle.open(bundle, verify=not no_verify)
    generator = Generator(
        opened,
        head=head,
        runtime=runtime,
        threads=threads,
        monitor=MonitorOptions(every=monitor) if monitor else None,
        tracer=tracer,
        draft=None if draft is None else Generator(Bundle.open(draft, verify=not no_verify), threads=threads),
    )
    chosen = GenerationOptions.of(**sampling_keywords(options, generator.tokenizer), **options)
    text = sys.stdin.read() if prompt == "-" else prompt
    result = _run(generator.stream(text, chosen), echo=not as_json)
    if trace is not None and tracer is not None:
        tracer.write(trace)
    if as_json:
        click.echo(json.dumps(_report(result), ensure_ascii=False, indent=2))
    if ctx.find_root().params.get("verbose"):
        click.echo(_summary(result), err=True)
    if result.finish_reason == "interrupted":
        ctx.exit(_INTERRUPTED)


def _run(stream: GenerationStream, *, echo: bool) -> Generation:
    """Generate to the end or to Ctrl-C, printing pieces as they come."""
    try:
        for piece in stream:
            if echo:
                click.echo(piece, nl=False)
                sys.stdout.flush()
    except KeyboardInterrupt:
        stream.close()
    if echo:
        click.echo()
    return stream.result


def _report(result: Generation) -> dict[str, object]:
    """Keys of the JSON output."""
    from flashhead_edge.memory import peak_rss_bytes

    return {**dataclasses.asdict(result), "peak_rss_bytes": peak_rss_bytes()}


def _summary(result: Generation) -> str:
    """One line of timings for people."""
    parts = [f"{result.prompt_tokens} prompt tokens", f"{len(result.token_ids)} new ({result.finish_reason})"]
    if result.time_to_first_token_ms is not None:
        parts.append(f"first after {result.time_to_first_token_ms:.0f} ms")
    if result.tokens_per_second is not None:
        parts.append(f"{result.tokens_per_second:.1f} tokens/s")
    if result.recall is not None and result.recall["checks"]:
        parts.append(f"agreement about {result.recall['agreement']:.3f} over {result.recall['checks']} checks")
    return f"{', '.join(parts)}; {result.head} head, {result.runtime} on {', '.join(result.providers)}"
