"""What the stages of a step must read and compute, counted from a bundle's manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flashhead_edge import layout
from flashhead_edge.profiling import record
from flashhead_edge.quantize import BLOCK_SIZE

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.manifest import BodyRecord, Manifest

#: Bytes of a weight: blocks of 32 have a half-precision scale.
_WEIGHT_BYTES = {
    "int4": 0.5 + 2 / BLOCK_SIZE,
    "int8": 1 + 2 / BLOCK_SIZE,
    "fp16": 2.0,
    "fp32": 4.0,
}
_CACHE_ITEM_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """What a stage needs in a step.

    Attributes:
        bytes: Read from memory, once.
        operations: Multiplications and additions.
    """

    bytes: int
    operations: int


def stage_costs(
    manifest: Manifest,
    *,
    head: str,
    batch: int,
    positions: int,
    greedy: bool = False,
    rescored: int = 0,
    rank: int | None = None,
) -> dict[str, Cost]:
    """Costs by stage.

    Weights count once a step, whatever the batch; clusters that several states open count for each, which is an upper
    limit. The body's operations are those of its weights, by their bytes; attention over the cache is left out of them.

    Args:
        manifest: Of a bundle with a body.
        head: "two-stage" or "dense".
        batch: B.
        positions: Tokens in the cache.
        greedy: Whether the native library takes a greedy step: int8 centroids and rows are read by half, or low-bit
            rows in their place, and only the best as they are stored: P centroids at least, and ``rescored`` rows.
        rescored: Rows of which the other half is then read, or that are read as they are stored.
        rank: r, to which stage 1 projects states first; None where it does not.

    Returns:
        Costs of the stages that read weights.
    """
    index, width = manifest.index, manifest.hidden_size
    slots, row_bytes = manifest.slots, manifest.row_bytes
    costs = {}
    if manifest.body is not None:
        weights = manifest.files[layout.BODY_DATA].bytes
        count = weights / _WEIGHT_BYTES[manifest.body.precision]
        cache = cache_bytes(manifest.body, batch=batch, positions=positions)
        costs[record.BODY] = Cost(weights + cache, round(2 * count * batch))
    if head == "dense":
        costs[record.DENSE_HEAD] = Cost(slots * row_bytes, 2 * slots * width * batch)
        return costs
    stored, projection = index.num_clusters * (rank or width), width * (rank or 0)
    centroids = round(stored * _WEIGHT_BYTES[index.centroid_precision]) + 8 * index.num_clusters + 4 * projection
    if greedy and index.centroid_precision == "int8":
        centroids += (2 * index.num_probes - index.num_clusters) * (rank or width) // 2
    costs[record.CENTROIDS] = Cost(centroids, 2 * (stored + projection) * batch)
    candidates = index.num_probes * index.cluster_size + index.always_scored
    read = candidates * row_bytes
    estimates, again = (layout.LOW_BIT_CODES, layout.LOW_BIT_SCALES), row_bytes
    if layout.HIGH_NIBBLES in manifest.tables:  # of which the low ones are then read besides
        estimates, again = (layout.HIGH_NIBBLES, layout.ROW_SCALES), manifest.bytes_of_row(layout.LOW_NIBBLES)
    if greedy and estimates[0] in manifest.tables:
        read = candidates * manifest.bytes_of_row(*estimates) + min(rescored, candidates) * again
    token_order = 4 * candidates
    costs[record.GATHER_DOT] = Cost(batch * (read + token_order), 2 * candidates * width * batch)
    return costs


def rank_of(bundle: Bundle) -> int | None:
    """Dimensions that stage 1 projects states to; None where it scores them as they are."""
    projection = bundle.index().projection
    return None if projection is None else projection.shape[1]


def cache_bytes(body: BodyRecord, *, batch: int, positions: int) -> int:
    """Bytes of keys and values."""
    return 2 * body.num_layers * body.num_kv_heads * body.head_dim * positions * batch * _CACHE_ITEM_BYTES


def bound_of(
    cost: Cost, bandwidth_gb_s: float | None, operations_g_s: float | None
) -> Literal["bandwidth", "compute"] | None:
    """What limits a stage by roofline: the longer of bytes / bandwidth and operations / peak; None where unknown.

    Source: Williams, Waterman and Patterson, "Roofline" (2009).
    """
    if not bandwidth_gb_s or not operations_g_s:
        return None
    return "bandwidth" if cost.bytes / bandwidth_gb_s >= cost.operations / operations_g_s else "compute"
