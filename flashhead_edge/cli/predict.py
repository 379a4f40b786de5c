"""``flashhead-edge predict``: what a decode step will cost on platforms that are not at hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from flashhead_edge.platforms.catalog import Platform
    from flashhead_edge.prediction.shapes import HeadShape, ModelShape
    from flashhead_edge.profiling.record import Profile

_FILE = click.Path(path_type=Path)
_COLUMNS = ("platform", "head", "step ms", "tok/s", "head ms", "share", "weights MB", "J/token", "may be off by")


@click.command("predict", short_help="Predict a decode step on other platforms.")
@click.argument("bundle", type=_FILE, required=False)
@click.option("--config", type=_FILE, help="A config.json of Hugging Face, in place of a bundle.")
@click.option("--vocab-size", type=int, help="V, in place of a bundle; the head alone if nothing else is given.")
@click.option("--hidden-size", type=int, help="H.")
@click.option("--body-weights", type=int, help="Weights of the body that a step multiplies with.")
@click.option("--num-layers", type=int, help="Layers of the body.")
@click.option("--num-kv-heads", type=int, default=0, help="Heads of the key-value cache in a layer.")
@click.option("--head-dim", type=int, default=0, help="Length of a key.")
@click.option("--body-precision", default="int4", show_default=True, help="Of a body that is in no bundle.")
@click.option("--head", "heads", multiple=True, help="This head; may be given more than once.  [default: two-stage]")
@click.option("--cluster-size", type=int, help="C.")
@click.option("--probes", "num_probes", type=int, help="P.")
@click.option("--centroid-precision", help="int4, int8, fp16 or fp32.")
@click.option("--cluster-precision", help="fp16, fp32, int8 or int4.")
@click.option("--low-bit-rows", help="int8 or int4 rows that are scored first.")
@click.option("-b", "--batch", type=int, default=1, show_default=True, help="Texts side by side.")
@click.option("--context", type=int, default=512, show_default=True, help="Tokens of each text in the cache.")
@click.option("--platform", "names", multiple=True, help="A name that platforms lists; may be given more than once.")
@click.option("--all-platforms", is_flag=True, help="Every platform whose memory bandwidth is known.")
@click.option("--file", "files", type=_FILE, multiple=True, help="A TOML file with more platforms.")
@click.option("--bandwidth", type=float, help="10^9 bytes a second that a stream test reaches, for platforms of CPUs.")
@click.option("--cores", type=int, help="Cores of a CPU, for the peak of operations.")
@click.option("--clock", type=float, help="Their clock in GHz.")
@click.option("--scaling", is_flag=True, help="Predict the head alone too, over P, batch, K and V.")
@click.option("-o", "--output", type=_FILE, help="Save the profile to this file, for profile --report --from.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON: one profile, or a list of them.")
def predict_command(
    bundle: Path | None,
    config: Path | None,
    vocab_size: int | None,
    hidden_size: int | None,
    body_weights: int | None,
    num_layers: int | None,
    num_kv_heads: int,
    head_dim: int,
    body_precision: str,
    heads: tuple[str, ...],
    cluster_size: int | None,
    num_probes: int | None,
    centroid_precision: str | None,
    cluster_precision: str | None,
    low_bit_rows: str | None,
    batch: int,
    context: int,
    names: tuple[str, ...],
    all_platforms: bool,
    files: tuple[Path, ...],
    bandwidth: float | None,
    cores: int | None,
    clock: float | None,
    scaling: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Predict a decode step on other platforms, from shapes alone.

    BUNDLE is a folder made by export; --config, or --vocab-size and --hidden-size, stand in for one. Nothing is
    measured: docs/prediction.md says how far off predictions were where something could be. Heads: two-stage,
    two-stage-portable, dense-fp32, dense-fp16, dense-int8, dense-int4.
    """
    from flashhead_edge.files import write_bytes
    from flashhead_edge.platforms.catalog import load_catalog
    from flashhead_edge.prediction.heads import HeadOptions, named_head
    from flashhead_edge.prediction.limits import platform_limits
    from flashhead_edge.prediction.roofline import predict_step
    from flashhead_edge.prediction.series import predict_series
    from flashhead_edge.profiling.formats import format_profile

    body = (body_weights, num_layers, num_kv_heads, head_dim, body_precision)
    model, own = _model(bundle, config, vocab_size, hidden_size, body)
    options = HeadOptions(cluster_size, num_probes, centroid_precision, cluster_precision, low_bit_rows)
    shapes = [named_head(name, model.vocab_size, options, own) for name in heads or ("two-stage",)]
    catalog = load_catalog(files)
    platforms = [catalog.find(name) for name in names] if not all_platforms else list(catalog.platforms.values())
    if all_platforms:
        platforms = _with_bandwidth(platforms, bandwidth)
    if not platforms:
        raise click.UsageError("Name a platform with --platform, or give --all-platforms.")
    profiles = []
    for platform in platforms:
        cpu = platform.family == "cpu"
        limits = platform_limits(
            platform, bandwidth_gb_s=bandwidth if cpu or not all_platforms else None, cores=cores, clock_ghz=clock
        )
        for head in shapes:
            profile = predict_step(model, head, platform, limits, batch=batch, positions=context)
            points = predict_series(model, head, platform, limits) if scaling else ()
            profiles.append(replace(profile, head_points=points))
    if output is not None:
        if len(profiles) > 1:
            raise click.UsageError("--output takes one profile: name one platform and one head.")
        write_bytes(output, profiles[0].to_json().encode())
    if as_json:
        found = [profile.as_dict() for profile in profiles]
        click.echo(json.dumps(found[0] if len(found) == 1 else found, indent=2, ensure_ascii=False))
    else:
        click.echo(format_profile(profiles[0]) if len(profiles) == 1 else _table(profiles) + "\n", nl=False)


def _model(
    bundle: Path | None,
    config: Path | None,
    vocab_size: int | None,
    hidden_size: int | None,
    body: tuple[int | None, int | None, int, int, str],
) -> tuple[ModelShape, HeadShape | None]:
    """The model from whichever was given, and the head of a bundle."""
    from flashhead_edge.prediction.model_shapes import bundle_shape, config_shape
    from flashhead_edge.prediction.shapes import BodyShape, ModelShape

    given = [bundle is not None, config is not None, vocab_size is not None or hidden_size is not None]
    if sum(given) != 1:
        raise click.UsageError("Give a bundle, or --config, or --vocab-size and --hidden-size.")
    if bundle is not None:
        from flashhead_edge.bundle import Bundle

        return bundle_shape(Bundle.open(bundle, verify=False))
    weights, layers, kv_heads, head_dim, precision = body
    if config is not None:
        return config_shape(config, body_precision=precision), None
    if vocab_size is None or hidden_size is None or min(vocab_size, hidden_size) < 1:
        raise click.UsageError("--vocab-size and --hidden-size belong together, 1 or more each.")
    if (weights is None) != (layers is None):
        raise click.UsageError("--body-weights and --num-layers belong together.")
    shape = None
    if weights is not None and layers is not None:
        shape = BodyShape(layers, kv_heads, head_dim, weights, precision)
    return ModelShape(f"{vocab_size:,} x {hidden_size:,}", vocab_size, hidden_size, shape), None


def _with_bandwidth(platforms: Sequence[Platform], bandwidth: float | None) -> list[Platform]:
    """Platforms that can be predicted; says which cannot."""
    known = [
        platform
        for platform in platforms
        if platform.memory_bandwidth_gb_s is not None or (bandwidth is not None and platform.family == "cpu")
    ]
    missing = [platform.name for platform in platforms if platform not in known]
    if missing:
        click.echo(f"Memory bandwidth unknown, not predicted: {', '.join(missing)}", err=True)
    return known


def _table(profiles: Sequence[Profile]) -> str:
    """Several predictions, a line each."""
    from flashhead_edge.profiling.formats import number, table

    rows = []
    for profile in profiles:
        model, error = profile.model, profile.relative_error
        rows.append(
            (
                str(profile.platform),
                model.head if model.num_clusters is not None else f"dense {model.head_precision}",
                f"{profile.step_ms:.3f}",
                f"{profile.tokens_per_second:,.1f}",
                f"{profile.head_ms:.3f}",
                f"{profile.head_share:.0%}",
                f"{(profile.memory.weights_bytes or 0) / 1e6:,.0f}",
                number(profile.energy_j_per_token, ".3g"),
                number(error, ".0%"),
            )
        )
    return "\n".join(["PREDICTED, nothing of this was measured", "", *table(_COLUMNS, rows)])
