"""``flashhead-edge export``: a model into a bundle."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.export.options import ExportOptions


@click.command("export", short_help="Turn a model into a bundle.")
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--cluster-size", type=int, help="Tokens of a cluster.  [default: 32]")
@click.option("--clusters", type=int, help="Number of clusters, instead of their size.")
@click.option("--probes", type=int, help="Clusters opened in a step.  [default: by vocabulary]")
@click.option("--centroid-rank", type=int, help="Dimensions that stage 1 projects states to.  [default: all]")
@click.option("--always-scored", type=int, help="Rows scored at every step.  [default: one in a thousand]")
@click.option(
    "--centroid-precision",
    default="int8",
    show_default=True,
    metavar="int4|int8|fp32|fp16|fp8",
    help="fp16 and fp8 for TensorRT only.",
)
@click.option(
    "--cluster-precision",
    default="auto",
    show_default=True,
    metavar="auto|fp16|fp32|int8|fp8",
    help="auto: int8 where the source's rows are, as in a .gguf file, else fp16. int8 and fp8 for TensorRT only.",
)
@click.option("--low-bit-rows", metavar="int8|int4", help="Rows that the native library scores first.")
@click.option(
    "--calibration", default="builtin", show_default=True, metavar="builtin|self|FILE", help="Text or states."
)
@click.option("--body-precision", default="int8", show_default=True, metavar="int4|int8|fp32")
@click.option("--no-body", is_flag=True, help="Export the head alone.")
@click.option("--max-context", type=int, default=8192, show_default=True, help="Longest context in tokens.")
@click.option("--target", default="ort", show_default=True, metavar="ort|tensorrt|all", help="Form of the graphs.")
@click.option("--tensorrt-max-batch", type=int, default=8, show_default=True, help="Greatest batch of an engine.")
@click.option("--tensorrt-weight-inputs", is_flag=True, help="Weights are inputs of the graph for TensorRT.")
@click.option("--tensorrt-dense", metavar="fp16|int8|int4", help="Also write a dense head for TensorRT.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="Where model and clustering compute: cpu or cuda.")
@click.option("--revision", help="Revision of a Hub model.")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("--trust-remote-code", is_flag=True, help="Allow code that comes with the model to run.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option("--dry-run", is_flag=True, help="Read the head, say what would be made, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object.")
def export_command(source: str, output: Path | None, as_json: bool, force: bool, dry_run: bool, **choices: Any) -> None:
    """Turn a model into a bundle.

    SOURCE is a Hugging Face folder, a .gguf file, or a Hub id where no such path exists. --target tensorrt makes the
    head alone, for ONNX Runtime and for TensorRT; all adds the head for TensorRT to what ort makes.
    """
    if output is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--output'.")
    from flashhead_edge.cli.progress import StageProgress
    from flashhead_edge.export.exporter import export_bundle
    from flashhead_edge.export.heads import read_head
    from flashhead_edge.export.plan import plan_export
    from flashhead_edge.export.sources import resolve_source

    options = _options(choices)
    if output is None or dry_run:
        model = resolve_source(source, offline=options.offline, revision=options.revision)
        plan = dataclasses.asdict(plan_export(model, read_head(model), options))
        click.echo(json.dumps(plan, indent=2) if as_json else "\n".join(f"{k:>14}  {v}" for k, v in plan.items()))
        return
    start = time.perf_counter()
    with StageProgress() as progress:
        bundle = export_bundle(source, output, options, force=force, progress=progress)
    report = _report(bundle, output)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(_summary(report, time.perf_counter() - start))


def _options(choices: dict[str, Any]) -> ExportOptions:
    """Build the options from the command line's choices."""
    from flashhead_edge.errors import OptionError
    from flashhead_edge.export.options import ExportOptions
    from flashhead_edge.index.build import IndexOptions

    if choices["clusters"] is not None and choices["cluster_size"] is not None:
        raise OptionError("--clusters and --cluster-size exclude each other.", hint="give one of them")
    index = IndexOptions(
        num_clusters_override=choices["clusters"],
        always_scored=choices["always_scored"],
        centroid_rank=choices["centroid_rank"],
        seed=choices["seed"],
        **({} if choices["cluster_size"] is None else {"cluster_size": choices["cluster_size"]}),
    )
    return ExportOptions(
        index=index,
        num_probes=choices["probes"],
        centroid_precision=choices["centroid_precision"],
        cluster_precision=choices["cluster_precision"],
        low_bit_rows=choices["low_bit_rows"],
        body_precision=None if choices["no_body"] or choices["target"] == "tensorrt" else choices["body_precision"],
        max_positions=choices["max_context"],
        target=choices["target"],
        **{name: value for name, value in choices.items() if name.startswith("tensorrt_")},
        calibration=choices["calibration"],
        device=choices["device"],
        offline=choices["offline"],
        revision=choices["revision"],
        trust_remote_code=choices["trust_remote_code"],
    )


def _report(bundle: Bundle, output: Path) -> dict[str, Any]:
    """The facts that ``--json`` promises."""
    manifest = bundle.manifest
    index = manifest.index
    return {
        "bundle": str(output),
        "vocab_size": manifest.vocab_size,
        "hidden_size": manifest.hidden_size,
        "num_clusters": index.num_clusters,
        "cluster_size": index.cluster_size,
        "num_probes": index.num_probes,
        "always_scored": index.always_scored,
        "rows_scored": index.rows_scored,
        "reduction": index.reduction,
        "clustering_seconds": index.clustering_seconds,
        "calibration": dataclasses.asdict(index.calibration),
        "positions": index.quality.positions,
        "containment": index.quality.containment,
        "agreement": index.quality.agreement,
        "bytes": sum(record.bytes for record in manifest.files.values()),
    }


def _summary(report: dict[str, Any], seconds: float) -> str:
    """A few lines for people."""
    clusters = f"{report['num_clusters']} clusters of {report['cluster_size']}, {report['num_probes']} opened in a step"
    rows = f"{report['rows_scored']} of {report['vocab_size']} rows scored ({report['reduction']:.1f} x fewer)"
    lines = [
        f"Wrote {report['bundle']} ({report['bytes'] / 1e6:.0f} MB) in {seconds:.0f} s.",
        f"  {clusters}: {rows}",
    ]
    if report["agreement"] is not None:
        lines.append(
            f"  agreement with the dense head on {report['positions']} states kept from calibration: "
            f"{report['agreement']:.4f}"
        )
    return "\n".join(lines)
