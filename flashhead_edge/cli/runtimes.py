"""``flashhead-edge runtimes``: which runtime is chosen here, and why each of the others is not."""

from __future__ import annotations

import json
from pathlib import Path

import click

_WIDTHS = (22, 8)


@click.command("runtimes", short_help="Show which runtime is chosen here, and why.")
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["text", "head", "serve"]),
    default="text",
    show_default=True,
    help="Whole texts on this device, a head alone, or a server.",
)
@click.option("--no-providers", is_flag=True, help="Do not try ONNX Runtime's execution providers.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object.")
def runtimes_command(bundle: Path | None, purpose: str, no_providers: bool, as_json: bool) -> None:
    """Show which runtime is chosen here, and why each of the others is not.

    With BUNDLE, what its graphs allow counts too. Facts about the device can be given by environment variables, as for
    doctor.
    """
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.platforms.detection import detect
    from flashhead_edge.platforms.matching import match_platform
    from flashhead_edge.runtimes.selector import judge

    facts = detect(try_providers=not no_providers)
    graphs = None if bundle is None else frozenset(Bundle.open(bundle, verify=False).manifest.graphs)
    choices = judge(facts, purpose, graphs=graphs)  # type: ignore[arg-type]
    platform = match_platform(facts)
    if as_json:
        report = {"platform": platform.name, "for": purpose, "runtimes": [choice.as_dict() for choice in choices]}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    click.echo(f"platform: {platform.name or 'unknown'} ({platform.reason})")
    for choice in choices:
        state = "chosen" if choice.chosen else "usable" if choice.usable else "no"
        click.echo(f"{choice.candidate.name:<{_WIDTHS[0]}}{state:<{_WIDTHS[1]}}{choice.reason}")
    if not any(choice.chosen for choice in choices):
        click.echo("None can be used: flashhead-edge doctor says what to install.")
