"""``flashhead-edge build``: a TensorRT engine of a bundle's head."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flashhead_edge.runtimes.tensorrt.builder import BuiltEngine
    from flashhead_edge.runtimes.tensorrt.planning import BuildPlan

_NAME_WIDTH = 20
_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def _size(text: str) -> int:
    """Read "268435456", "256MiB" or "0.5 GiB"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS or not float(match[1]):
        raise click.BadParameter(f"{text!r} is no size; write bytes, or a unit as in 256MiB or 1GiB.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _batch(text: str) -> tuple[int, int, int]:
    """Read "1,1,8"."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise click.BadParameter(f"{text!r} is not three numbers, as in 1,1,8.")
    least, tuned, most = (int(part) for part in parts)
    return least, tuned, most


@click.command("build", short_help="Build a TensorRT engine of a bundle.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--platform", metavar="NAME", help="What to build for.  [default: this device]")
@click.option(
    "--platform-file", type=click.Path(path_type=Path), multiple=True, help="A TOML file with more platforms."
)
@click.option("--graph", type=click.Choice(["head", "dense"]), default="head", show_default=True)
@click.option("--batch", type=_batch, metavar="MIN,OPT,MAX", help="Batches.  [default: the graph's]")
@click.option(
    "--workspace", type=_size, metavar="SIZE", help="Limit of the workspace, such as 256MiB.  [default: platform's]"
)
@click.option(
    "--optimization-level", type=click.IntRange(0, 5), help="How long to look for fast kernels.  [default: 3]"
)
@click.option("--backend", type=click.Choice(["auto", "tensorrt", "tensorrt-rtx"]), default="auto", show_default=True)
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Where engines are kept.  [default: in the bundle]")
@click.option("--rebuild", is_flag=True, help="Build even if the engine is there.")
@click.option("--log", "log_file", type=click.Path(path_type=Path), help="Keep TensorRT's log in this file.")
@click.option("--no-memory-check", is_flag=True, help="Build even if free memory is below the estimate.")
@click.option("--no-verify", is_flag=True, help="Do not hash the bundle's files.")
@click.option("--dry-run", is_flag=True, help="Say what would be built, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object.")
def build_command(
    bundle: Path,
    platform: str | None,
    platform_file: tuple[Path, ...],
    rebuild: bool,
    log_file: Path | None,
    no_memory_check: bool,
    no_verify: bool,
    dry_run: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Build a TensorRT engine of a bundle, or find the one that is there.

    BUNDLE is a folder made by export --target tensorrt or all. TensorRT for RTX builds ahead of time, without the GPU;
    TensorRT builds on the device itself.
    """
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.platforms.catalog import load_catalog
    from flashhead_edge.platforms.detection import detect
    from flashhead_edge.runtimes.tensorrt.builder import build_engine
    from flashhead_edge.runtimes.tensorrt.planning import BuildOptions, plan_build
    from flashhead_edge.runtimes.tensorrt.target import platform_here

    catalog, facts = load_catalog(platform_file), detect(try_providers=False)
    target = platform_here(catalog, facts) if platform is None else catalog.find(platform)
    options = BuildOptions(
        graph=choices["graph"],
        batch=choices["batch"],
        workspace_bytes=choices["workspace"],
        optimization_level=choices["optimization_level"],
        backend=None if choices["backend"] == "auto" else choices["backend"],
        folder=choices["cache_dir"],
    )
    plan = plan_build(Bundle.open(bundle, verify=not no_verify), target, facts, options)
    if dry_run:
        report = plan_report(plan, rebuild=rebuild)
        click.echo(json.dumps(report, indent=2) if as_json else _lines(report))
        return
    built = build_engine(
        plan,
        rebuild=rebuild,
        check_free_memory=not no_memory_check,
        say=lambda message: click.echo(message, err=True),
        log_file=log_file,
    )
    report = engine_report(built)
    click.echo(json.dumps(report, indent=2) if as_json else _summary(report))


def plan_report(plan: BuildPlan, *, rebuild: bool) -> dict[str, Any]:
    """Gather what ``--dry-run --json`` prints; sizes in bytes.

    Args:
        plan: What would be built.
        rebuild: Whether an engine that is there would be built again.
    """
    from flashhead_edge.platforms.free_memory import free_memory_bytes
    from flashhead_edge.runtimes.tensorrt.engine_cache import EngineCache

    cache, key = EngineCache(plan.folder), plan.key
    found = None if rebuild else cache.find(key)
    return {
        "graph": key.graph,
        "platform": plan.platform,
        "compute_capability": key.compute_capability,
        "backend": key.backend,
        "backend_because": plan.backend_because,
        "tensorrt_version": key.tensorrt_version,
        "batch": list(key.batch),
        "workspace_bytes": key.workspace_bytes,
        "optimization_level": key.optimization_level,
        "weights_bytes": plan.weights_bytes,
        "memory_estimate_bytes": plan.memory_estimate,
        "free_memory_bytes": free_memory_bytes(),
        "engine": str(cache.path(key)),
        "key": key.digest,
        "would_build": found is None,
        "because": "it was asked for" if rebuild else cache.why_build(key) if found is None else "the engine is there",
    }


def engine_report(built: BuiltEngine) -> dict[str, Any]:
    """Gather what ``--json`` prints; sizes in bytes.

    Args:
        built: The engine.
    """
    record, key = built.record, built.record.key
    return {
        "engine": str(built.path),
        "key": key.digest,
        "seconds": record.seconds,
        "backend": key.backend,
        "compute_capability": key.compute_capability,
        "layers_fused": record.layers_fused,
        "scratch_bytes": record.scratch_bytes,
        "graph": key.graph,
        "platform": record.platform,
        "tensorrt_version": key.tensorrt_version,
        "batch": list(key.batch),
        "workspace_bytes": key.workspace_bytes,
        "optimization_level": key.optimization_level,
        "graph_nodes": record.graph_nodes,
        "engine_layers": record.engine_layers,
        "bytes": record.bytes,
        "built": built.built_because is not None,
        "because": built.built_because or "the engine is there",
    }


def _lines(report: dict[str, Any]) -> str:
    """A dry run for people."""
    from flashhead_edge.cli.inspect import human_bytes

    def words(name: str, value: Any) -> str:
        if value is None:
            return "unknown"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if name.endswith("_bytes"):
            return human_bytes(value)
        return ",".join(map(str, value)) if isinstance(value, list) else str(value)

    names = {name: name.removesuffix("_bytes").replace("_", " ") for name in report}
    return "\n".join(f"{names[name]:<{_NAME_WIDTH}}{words(name, value)}" for name, value in report.items())


def _summary(report: dict[str, Any]) -> str:
    """A few lines for people."""
    from flashhead_edge.cli.inspect import human_bytes

    state = f"Built in {report['seconds']:.1f} s" if report["built"] else "Found, built before"
    lines = [
        f"{state}: {report['engine']} ({human_bytes(report['bytes'])})",
        f"{report['graph']} for {report['platform']}, compute capability {report['compute_capability']}",
        f"{report['backend']} {report['tensorrt_version']}, batches {','.join(map(str, report['batch']))}",
    ]
    if report["layers_fused"] is not None:
        lines.append(f"{report['graph_nodes']} nodes of the graph became {report['engine_layers']} layers")
    if report["scratch_bytes"] is not None:
        lines.append(f"{human_bytes(report['scratch_bytes'])} of scratch memory beside weights, inputs and outputs")
    return "\n".join(lines)
