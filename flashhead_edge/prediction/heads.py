"""Heads by the names that ``bench`` gives them, and what of them can be chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flashhead_edge.errors import OptionError, did_you_mean
from flashhead_edge.prediction.shapes import DENSE, TWO_STAGE, HeadShape

PORTABLE = "two-stage-portable"
#: "two-stage" scores rows where they lie, as the native library and GPU kernels do; the portable one gathers first.
HEADS = ("two-stage", PORTABLE, "dense-fp32", "dense-fp16", "dense-int8", "dense-int4")


@dataclass(frozen=True)
class HeadOptions:
    """What differs from the bundle's head, or from the one that export would make; None for what does not.

    Attributes:
        cluster_size: C.
        num_probes: P.
        centroid_precision: How centroids are stored.
        cluster_precision: How rows are stored.
        low_bit_rows: Rows that are scored first.
    """

    cluster_size: int | None = None
    num_probes: int | None = None
    centroid_precision: str | None = None
    cluster_precision: str | None = None
    low_bit_rows: str | None = None


def named_head(name: str, vocab_size: int, options: HeadOptions, own: HeadShape | None = None) -> HeadShape:
    """The head of a name.

    Args:
        name: One of :data:`HEADS`.
        vocab_size: V.
        options: What to change.
        own: The head of a bundle.

    Returns:
        Its shape. A head of other clusters than the bundle's says nothing of agreement.

    Raises:
        OptionError: There is no such head, or an option is out of range.
    """
    if name not in HEADS:
        raise OptionError(f"There is no head {name!r} to predict.", hint=did_you_mean(name, HEADS))
    kind, _, precision = name.partition("-")
    if kind == DENSE:
        return HeadShape(DENSE, precision)
    fused = name != PORTABLE
    if not fused and options.low_bit_rows is not None:
        raise OptionError("Only fused kernels score low-bit rows first.", found=name, expected="--head two-stage")
    if own is None or options.cluster_size is not None:
        return two_stage_head(
            vocab_size,
            cluster_size=options.cluster_size,
            num_probes=options.num_probes,
            centroid_precision=options.centroid_precision or "int8",
            precision=options.cluster_precision or "fp16",
            low_bit_rows=options.low_bit_rows,
            fused=fused,
        )
    return replace(
        own,
        num_probes=own.num_probes if options.num_probes is None else options.num_probes,
        centroid_precision=options.centroid_precision or own.centroid_precision,
        precision=options.cluster_precision or own.precision,
        low_bit_rows=(options.low_bit_rows or own.low_bit_rows) if fused else None,
        fused=fused,
        agreement=own.agreement if options == HeadOptions() else None,
    )


def two_stage_head(
    vocab_size: int,
    *,
    cluster_size: int | None = None,
    num_clusters: int | None = None,
    num_probes: int | None = None,
    centroid_precision: str = "int8",
    precision: str = "fp16",
    low_bit_rows: str | None = None,
    fused: bool = True,
) -> HeadShape:
    """A two-stage head as ``export`` would make it; what is not given is what it would choose.

    Args:
        vocab_size: V.
        cluster_size: C.
        num_clusters: K in its place.
        num_probes: P.
        centroid_precision: How centroids are stored.
        precision: How rows are stored.
        low_bit_rows: "int8" or "int4" rows to score first.
        fused: As in :class:`HeadShape`.

    Raises:
        OptionError: A value is out of range.
    """
    from flashhead_edge.export.options import ExportOptions
    from flashhead_edge.index.build import IndexOptions

    size = IndexOptions.cluster_size if cluster_size is None else cluster_size
    index = IndexOptions(cluster_size=size, num_clusters_override=num_clusters)
    clusters = index.num_clusters(vocab_size)
    members = -(-vocab_size // clusters)
    return HeadShape(
        TWO_STAGE,
        precision,
        num_clusters=clusters,
        cluster_size=members,
        num_probes=ExportOptions(index=index, num_probes=num_probes).probes(vocab_size),
        always_clusters=index.always_slots(vocab_size) // members,
        centroid_precision=centroid_precision,
        low_bit_rows=low_bit_rows,
        fused=fused,
    )
