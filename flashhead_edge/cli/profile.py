"""``flashhead-edge profile``: where the time, bytes and energy of a decode step go on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.profiling.record import Profile

_FILE = click.Path(path_type=Path)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("profile", short_help="Show where the time of a step goes.")
@click.argument("bundle", type=_FILE, required=False)
@click.option("--head", type=click.Choice(["two-stage", "dense"]), default="two-stage", show_default=True)
@click.option("-n", "--tokens", type=int, default=128, show_default=True, help="Steps to measure.")
@click.option("-t", "--threads", type=int, help="Threads of the operators.  [default: all cores]")
@click.option("--scaling", is_flag=True, help="Measure the head alone too, over P, batch, K and V.")
@click.option(
    "--tensorrt-layers",
    "layers",
    type=_EXISTING,
    metavar="FILE",
    help="Read what trtexec --exportProfile wrote of the head's engine on this device; run nothing.",
)
@click.option("--diff", nargs=2, type=_EXISTING, metavar="A B", help="Compare two saved profiles.")
@click.option(
    "--from", "saved", multiple=True, type=_EXISTING, help="Show a saved profile in the report too, or alone."
)
@click.option("--bench", type=_EXISTING, metavar="FILE", help="With --report: rows that bench --json wrote.")
@click.option("--report", type=_FILE, metavar="FILE", help="Write a page of HTML that needs nothing else.")
@click.option("--plots", type=_FILE, metavar="FOLDER", help="Write the report's plots as SVG and PNG files.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object.")
@click.option("-o", "--output", type=_FILE, help="Save to this file, not into the bundle.")
@click.option("--no-verify", is_flag=True, help="Do not hash the bundle's files; starts faster.")
def profile_command(
    bundle: Path | None,
    head: str,
    tokens: int,
    threads: int | None,
    scaling: bool,
    layers: Path | None,
    diff: tuple[Path, Path] | None,
    saved: tuple[Path, ...],
    bench: Path | None,
    report: Path | None,
    plots: Path | None,
    as_json: bool,
    output: Path | None,
    no_verify: bool,
) -> None:
    """Show where the time, bytes and energy of a decode step go on this machine.

    BUNDLE is a folder made by export. Stages are timed by ONNX Runtime's profiler and, inside the native head, by a
    clock in the operator; plain steps take turns with profiled ones, so that the cost of profiling is known. The
    profile is saved in the bundle's folder profiles, or to --output. A report shows it, or saved profiles, the first
    of which it is about; predictions among them are drawn in another style.
    """
    if (diff is None) == (bundle is None and not saved):
        raise click.UsageError("Missing argument 'BUNDLE'; or give saved profiles with --from, or two with --diff.")
    if (saved or bench) and not (report or plots):
        raise click.UsageError("--from and --bench are for --report and --plots.")
    if diff is not None:
        _compare(*diff, as_json=as_json)
        return
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.cli.progress import StageProgress
    from flashhead_edge.platforms.host import host_facts
    from flashhead_edge.profiling.engine_profile import engine_profile
    from flashhead_edge.profiling.options import ProfileOptions
    from flashhead_edge.profiling.profiler import take_profile
    from flashhead_edge.profiling.record import read_profile

    profiles = [read_profile(path) for path in saved]
    if bundle is not None:
        opened = Bundle.open(bundle, verify=not no_verify)
        if layers is not None:
            profile = engine_profile(opened, layers, head=head)
        else:
            options = ProfileOptions(head, tokens, threads or host_facts().logical_cores, scaling=scaling)
            with StageProgress() as progress:
                profile = take_profile(opened, options, progress)
        _save(opened, profile, output, as_json=as_json)
        profiles.insert(0, profile)
    if report or plots:
        _write_report(profiles, bench, report, plots)


def _save(bundle: Bundle, profile: Profile, output: Path | None, *, as_json: bool) -> None:
    """Save a profile and print it."""
    from flashhead_edge.files import write_text
    from flashhead_edge.profiling.formats import format_profile
    from flashhead_edge.profiling.store import save_profile

    if output is None:
        output = save_profile(bundle, profile)
    else:
        write_text(output, profile.to_json())
    click.echo(profile.to_json() if as_json else format_profile(profile), nl=False)
    click.echo(f"saved {output}", err=True)


def _write_report(profiles: Sequence[Profile], bench: Path | None, report: Path | None, plots: Path | None) -> None:
    """Write the page, the plots, or both."""
    from flashhead_edge.files import write_text
    from flashhead_edge.profiling.report.content import Content, read_rows
    from flashhead_edge.profiling.report.page import render_page
    from flashhead_edge.profiling.report.plot_files import write_plots

    content = Content(tuple(profiles), read_rows(bench) if bench else ())
    if report:
        write_text(report, render_page(content))
        click.echo(f"wrote {report}", err=True)
    if plots:
        click.echo(f"wrote {len(write_plots(content, plots))} files to {plots}", err=True)


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
