"""Heads for property tests of predictions."""

from __future__ import annotations

from hypothesis import strategies as st

from flashhead_edge.prediction.shapes import HeadShape

PRECISIONS = ("fp32", "fp16", "int8", "int4")


@st.composite
def two_stage_heads(draw, low_bit_rows=(None,)):
    """Two-stage heads of any shape, and the vocabulary that they divide."""
    size = draw(st.sampled_from([1, 8, 16, 32, 64]))
    clusters = draw(st.integers(2, 9000))
    head = HeadShape(
        "two-stage",
        draw(st.sampled_from(PRECISIONS)),
        num_clusters=clusters,
        cluster_size=size,
        num_probes=draw(st.integers(1, clusters)),
        always_clusters=draw(st.integers(0, 20)),
        centroid_precision=draw(st.sampled_from(PRECISIONS)),
        low_bit_rows=draw(st.sampled_from(low_bit_rows)),
        fused=draw(st.booleans()),
    )
    return clusters * size, head
