"""``flashhead-edge profile``: where the time, bytes and energy of a decode step go on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

_FILE = click.Path(path_type=Path)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("profile", short_help="Show where the time of a step goes.")
@click.argument("bundle", type=_FILE, required=False)
@click.option("--head", type=click.Choice(["two-stage", "dense"]), default="two-stage", show_default=True)
@click.option("-n", "--tokens", type=int, default=128, show_default=True, help="Steps to measure.")
@click.option("-t", "--threads", type=int, help="Threads of the operators.  [default: all cores]")
@click.option("--scaling", is_flag=True, help="Measure the head alone too, over P, batch, K and V.")
@click.option("--diff", nargs=2, type=_EXISTING, metavar="A B", help="Compare two saved profiles; takes no BUNDLE.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object.")
@click.option("-o", "--output", type=_FILE, help="Save to this file, not into the bundle.")
@click.option("--no-verify", is_flag=True, help="Do not hash the bundle's files; starts faster.")
def profile_command(
    bundle: Path | None,
    head: str,
    tokens: int,
    threads: int | None,
    scaling: bool,
    diff: tuple[Path, Path] | None,
    as_json: bool,
    output: Path | None,
    no_verify: bool,
) -> None:
    """Show where the time, bytes and energy of a decode step go on this machine.

    BUNDLE is a folder made by export. Stages are timed by ONNX Runtime's profiler and, inside the native head, by a
    clock in the operator; plain steps take turns with profiled ones, so that the cost of profiling is known. The
    profile is saved in the bundle's folder profiles, or to --output.
    """
    if diff is not None:
        if bundle is not None:
            raise click.UsageError("--diff compares two saved profiles and takes no BUNDLE.")
        _compare(*diff, as_json=as_json)
        return
    if bundle is None:
        raise click.UsageError("Missing argument 'BUNDLE', or --diff with two saved profiles.")
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.cli.progress import StageProgress
    from flashhead_edge.files import write_text
    from flashhead_edge.platforms.host import host_facts
    from flashhead_edge.profiling.formats import format_profile
    from flashhead_edge.profiling.measure import take_profile
    from flashhead_edge.profiling.options import ProfileOptions
    from flashhead_edge.profiling.store import save_profile

    options = ProfileOptions(head, tokens, threads or host_facts().logical_cores, scaling=scaling)
    opened = Bundle.open(bundle, verify=not no_verify)
    with StageProgress() as progress:
        profile = take_profile(opened, options, progress)
    if output is None:
        output = save_profile(opened, profile)
    else:
        write_text(output, profile.to_json())
    click.echo(profile.to_json() if as_json else format_profile(profile), nl=False)
    click.echo(f"saved {output}", err=True)


def _compare(first: Path, second: Path, *, as_json: bool) -> None:
    """Print the difference of two saved profiles."""
    from flashhead_edge.profiling.compare import compare_profiles
    from flashhead_edge.profiling.formats import format_difference
    from flashhead_edge.profiling.record import read_profile

    difference = compare_profiles(read_profile(first), read_profile(second))
    if as_json:
        click.echo(json.dumps(difference.as_dict(), indent=2))
    else:
        click.echo(format_difference(first.name, second.name, difference), nl=False)
