"""What a profile says of the model and its head, from a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashhead_edge.profiling import record

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle


def model_of(bundle: Bundle, head: str) -> record.Model:
    """What a profile says of the model.

    Args:
        bundle: The bundle.
        head: "two-stage" or "dense".
    """
    manifest, index = bundle.manifest, bundle.manifest.index
    two_stage = head == "two-stage"
    return record.Model(
        name=manifest.source.name,
        head=head,
        vocab_size=manifest.vocab_size,
        hidden_size=manifest.hidden_size,
        num_clusters=index.num_clusters if two_stage else None,
        cluster_size=index.cluster_size if two_stage else None,
        num_probes=index.num_probes if two_stage else None,
        head_precision=index.cluster_precision,
        centroid_precision=index.centroid_precision if two_stage else None,
        body_precision=manifest.body.precision if manifest.body else None,
        agreement=index.quality.agreement if two_stage else 1.0,
        fingerprint=manifest.source.fingerprint,
    )
