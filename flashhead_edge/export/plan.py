"""The sizes of a bundle, worked out before anything long starts."""

from __future__ import annotations

from dataclasses import dataclass

from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.sources import ModelSource
from flashhead_edge.export.tensorrt_limits import check_limits
from flashhead_edge.export.tensorrt_rows import int4_block
from flashhead_edge.lm_head import LmHead


@dataclass(frozen=True)
class ExportPlan:
    """What an export would make; the answer to ``--dry-run``.

    Attributes:
        source: Name of the model.
        model_type: Its Hugging Face type.
        vocab_size: V.
        hidden_size: H.
        tied: Whether head and input embedding are one matrix.
        num_clusters: K.
        cluster_size: C.
        num_probes: P.
        rows_scored: Rows that a step multiplies with the hidden state.
        reduction: V / rows scored.
        table_bytes: Size of the table of rows.
    """

    source: str
    model_type: str
    vocab_size: int
    hidden_size: int
    tied: bool
    num_clusters: int
    cluster_size: int
    num_probes: int
    rows_scored: int
    reduction: float
    table_bytes: int


def plan_export(source: ModelSource, head: LmHead, options: ExportOptions) -> ExportPlan:
    """Work out the sizes of a bundle.

    Raises:
        OptionError: Cluster size or probes are out of range for this vocabulary, or the head is not for TensorRT.
    """
    vocab = head.vocab_size
    clusters, probes = options.index.num_clusters(vocab), options.probes(vocab)
    size = -(-vocab // clusters)
    always = options.index.always_slots(vocab)
    rows = clusters + probes * size + always
    width = 4 if options.cluster_precision == "fp32" else 2
    if options.target != "ort":
        _check_tensorrt(
            options,
            num_probes=probes,
            num_clusters=clusters,
            table=(-(-always // size) + clusters, size, head.hidden_size),
        )
    return ExportPlan(
        source=source.name,
        model_type=source.model_type,
        vocab_size=vocab,
        hidden_size=head.hidden_size,
        tied=head.tied,
        num_clusters=clusters,
        cluster_size=size,
        num_probes=probes,
        rows_scored=rows,
        reduction=vocab / rows,
        table_bytes=(clusters * size + always) * head.hidden_size * width,
    )


def _check_tensorrt(options: ExportOptions, *, num_probes: int, num_clusters: int, table: tuple[int, int, int]) -> None:
    """Refuse a head that TensorRT cannot build, before it is clustered."""
    check_limits(num_probes=num_probes, num_clusters=num_clusters, table=table, batch=options.tensorrt_max_batch)
    if "int4" in (options.centroid_precision, options.tensorrt_dense):
        int4_block(table[2])
