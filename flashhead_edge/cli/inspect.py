"""``flashhead-edge inspect``: what a bundle holds, as text or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flashhead_edge.manifest import Manifest

#: Numbers that share a scale in a quantized row, and bytes of that scale: see ``flashhead_edge.quantize``.
_BLOCK_SIZE, _SCALE_BYTES = 32, 2
_NAME_WIDTH = 20


@click.command("inspect", short_help="Show what a bundle holds.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print only a JSON object.")
@click.option("--no-verify", is_flag=True, help="Do not hash the bundle's files.")
def inspect_command(bundle: Path, as_json: bool, no_verify: bool) -> None:
    """Show what a bundle holds.

    BUNDLE is a folder made by export. The hashes of all its files are checked first.
    """
    from flashhead_edge.bundle import Bundle

    manifest = Bundle.open(bundle, verify=not no_verify).manifest
    report = bundle_report(manifest, verified=not no_verify)
    click.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else _text(report))


def bundle_report(manifest: Manifest, *, verified: bool) -> dict[str, Any]:
    """Gather the facts of a bundle.

    Args:
        manifest: The bundle's manifest.
        verified: Whether the files were hashed.

    Returns:
        What ``--json`` prints; sizes in bytes.
    """
    import dataclasses

    index = manifest.index
    dense_bytes = manifest.vocab_size * manifest.hidden_size * 2
    step_bytes = head_bytes_per_step(manifest)
    body = manifest.body
    return {
        "created_by": manifest.created_by,
        "schema_version": manifest.schema_version,
        "source": dataclasses.asdict(manifest.source),
        "vocab_size": manifest.vocab_size,
        "hidden_size": manifest.hidden_size,
        "tied": manifest.tied,
        "num_clusters": index.num_clusters,
        "cluster_size": index.cluster_size,
        "num_probes": index.num_probes,
        "always_scored_ids": len(manifest.always_scored_ids),
        "always_scored_slots": index.always_scored,
        "rows_scored": index.rows_scored,
        "reduction": index.reduction,
        "centroid_precision": index.centroid_precision,
        "cluster_precision": index.cluster_precision,
        "head_bytes_per_step": step_bytes,
        "dense_fp16_bytes_per_step": dense_bytes,
        "bytes_reduction": dense_bytes / max(step_bytes, 1),
        "clustering_seconds": index.clustering_seconds,
        "calibration": dataclasses.asdict(index.calibration),
        "quality": dataclasses.asdict(index.quality),
        "body": None
        if body is None
        else {
            "precision": body.precision,
            "num_layers": body.num_layers,
            "num_kv_heads": body.num_kv_heads,
            "head_dim": body.head_dim,
            "max_positions": body.max_positions,
        },
        "graphs": sorted(manifest.graphs),
        "files": {name: record.bytes for name, record in manifest.files.items()},
        "total_bytes": sum(record.bytes for record in manifest.files.values()),
        "verified": verified,
    }


def head_bytes_per_step(manifest: Manifest) -> int:
    """Bytes of weights that the two-stage head reads in a step: all centroids, and the rows of the opened clusters."""
    index, width = manifest.index, manifest.hidden_size
    candidates = index.num_probes * index.cluster_size + index.always_scored
    row_bytes = manifest.row_bytes + (4 if manifest.has_bias else 0)
    return index.num_clusters * _row_bytes(width, index.centroid_precision) + candidates * row_bytes


def _row_bytes(width: int, precision: str) -> int:
    """Bytes of a row; quantized ones are in blocks with a scale each."""
    blocks = -(-width // _BLOCK_SIZE)
    sizes = {
        "fp32": width * 4,
        "fp16": width * 2,
        "int8": blocks * (_BLOCK_SIZE + _SCALE_BYTES),
        "int4": blocks * (_BLOCK_SIZE // 2 + _SCALE_BYTES),
    }
    if precision not in sizes:
        from flashhead_edge.errors import BundleError

        raise BundleError(
            "The bundle's manifest names an unknown precision.",
            found=precision,
            expected=", ".join(sizes),
            hint="export the model again",
        )
    return sizes[precision]


def _text(report: dict[str, Any]) -> str:
    """The report for people."""
    source, calibration, quality, body = (report[key] for key in ("source", "calibration", "quality", "body"))
    lines = [
        _line("source", f"{source['name']} ({source['kind']}, {source['model_type']})"),
        _line("made by", report["created_by"]),
        _line("head", f"{report['vocab_size']:,} tokens x {report['hidden_size']:,}" + ", tied" * report["tied"]),
        _line("clusters", f"{report['num_clusters']:,} of {report['cluster_size']} tokens"),
        _line("probes", f"{report['num_probes']:,} clusters opened in a step"),
        _line("always scored", f"{report['always_scored_ids']:,} tokens"),
        _line(
            "rows scored", f"{report['rows_scored']:,} of {report['vocab_size']:,}, {report['reduction']:.1f} x fewer"
        ),
        _line("precision", f"centroids {report['centroid_precision']}, rows {report['cluster_precision']}"),
        _line(
            "read in a step",
            f"{human_bytes(report['head_bytes_per_step'])}; a dense fp16 head reads "
            f"{human_bytes(report['dense_fp16_bytes_per_step'])}, {report['bytes_reduction']:.1f} x as much",
        ),
        _line("calibration", f"{calibration['source']}, {calibration['states']:,} states, seed {calibration['seed']}"),
        _line("clustered in", f"{report['clustering_seconds']:.1f} s"),
        _line("containment", _share(quality["containment"], quality["positions"])),
        _line("agreement", _share(quality["agreement"], quality["positions"])),
        _line(
            "body",
            "none: the bundle holds the head alone"
            if body is None
            else f"{body['precision']}, {body['num_layers']} layers, {body['num_kv_heads']} key-value heads of "
            f"{body['head_dim']}, {body['max_positions']:,} positions",
        ),
        _line("graphs", ", ".join(report["graphs"]) or "none"),
        _line(
            "files",
            f"{human_bytes(report['total_bytes'])}, " + ("hashes right" if report["verified"] else "not hashed"),
        ),
    ]
    lines += [f"  {name:<28}{human_bytes(size):>10}" for name, size in sorted(report["files"].items())]
    return "\n".join(lines)


def _line(name: str, value: str) -> str:
    return f"{name:<{_NAME_WIDTH}}{value}"


def _share(share: float | None, positions: int) -> str:
    """A measured share, or that there is none."""
    if share is None:
        return "not measured"
    return f"{share:.2%} of {positions:,} states kept from calibration"


def human_bytes(size: int) -> str:
    """A size with three digits or so, in decimal units."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
