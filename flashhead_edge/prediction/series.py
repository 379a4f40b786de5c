"""Series of a two-stage head alone, predicted: its time against probes, batch, clusters and vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from flashhead_edge.prediction.limits import Limits
from flashhead_edge.prediction.roofline import predict_step
from flashhead_edge.prediction.shapes import DENSE, HeadShape, ModelShape
from flashhead_edge.profiling.record import HeadPoint

if TYPE_CHECKING:
    from flashhead_edge.platforms.catalog import Platform

_Varied = Literal["probes", "batch", "clusters", "vocabulary"]
_BATCHES = (1, 2, 4, 8, 16, 32)
#: Parts of P and V, and how many neighbouring clusters are one.
_PROBE_PARTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1, 3 / 2, 2)
_VOCABULARY_PARTS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
_JOINED = (8, 4, 2, 1)


def predict_series(model: ModelShape, head: HeadShape, platform: Platform, limits: Limits) -> tuple[HeadPoint, ...]:
    """Predict all series.

    Args:
        model: The model; its body plays no part.
        head: Its head.
        platform: Where it runs.
        limits: Of the platform.

    Returns:
        The points, series by series; none for a dense head.
    """
    if head.kind == DENSE:
        return ()
    points = []
    for varied, batch, vocab, shape in _configurations(model.vocab_size, head):
        alone = replace(model, vocab_size=vocab, body=None)
        step = predict_step(alone, shape, platform, limits, batch=batch)
        points.append(HeadPoint(varied, batch, vocab, shape.num_clusters, shape.num_probes, step.step_ms))
    return tuple(points)


def _configurations(vocab: int, head: HeadShape) -> Iterator[tuple[_Varied, int, int, HeadShape]]:
    """What is varied, B, V and the head of every point."""

    def at_most(count: float, clusters: int) -> int:
        return min(clusters, max(1, round(count)))

    for part in _PROBE_PARTS:
        yield "probes", 1, vocab, replace(head, num_probes=at_most(head.num_probes * part, head.num_clusters))
    for batch in _BATCHES:
        yield "batch", batch, vocab, head
    for part in _VOCABULARY_PARTS:
        clusters = max(1, round(head.num_clusters * part))
        probes = min(head.num_probes, clusters)
        yield "vocabulary", 1, clusters * head.cluster_size, replace(head, num_clusters=clusters, num_probes=probes)
    for join in _JOINED:
        clusters = max(1, head.num_clusters // join)
        size, probes = head.cluster_size * join, at_most(head.num_probes // join, clusters)
        yield "clusters", 1, vocab, replace(head, num_clusters=clusters, cluster_size=size, num_probes=probes)
