"""What the stages of a decode step must move and compute, counted from shapes."""

from __future__ import annotations

from dataclasses import dataclass

from flashhead_edge.export.native_graph import NUM_RESCORED
from flashhead_edge.prediction.shapes import DENSE, Blocks, BodyShape, HeadShape, ModelShape
from flashhead_edge.profiling.record import BODY, CENTROIDS, DENSE_HEAD, GATHER_DOT, TOP_K

#: Bytes of a score, of a bias and of a token id in memory.
_FLOAT, _ID = 4, 4


@dataclass(frozen=True)
class Work:
    """What a stage of a step needs.

    Attributes:
        stage: Its name in the record of profiles.
        bytes: Weights and cache that memory must deliver.
        operations: Multiplications and additions.
        precision: Of the weights that are multiplied; None where nothing is.
        copied_bytes: What operators hand to each other on the way, scores and logits too, written and read.
        compared: Numbers among which the greatest are sought.
    """

    stage: str
    bytes: float
    operations: float = 0
    precision: str | None = None
    copied_bytes: float = 0
    compared: float = 0


def head_work(
    vocab_size: int,
    hidden_size: int,
    head: HeadShape,
    *,
    batch: int,
    blocks: Blocks,
    widened: bool = True,
    halves: bool = False,
) -> list[Work]:
    """Count the head of a step.

    Args:
        vocab_size: V.
        hidden_size: H.
        head: The head.
        batch: B, states of the step.
        blocks: How low-bit weights are stored.
        widened: Whether rows that were gathered are turned into float32 before they are multiplied.
        halves: Whether a fused head reads int8 centroids and rows by half in a greedy step, and the best as they are.

    Returns:
        Stages in order.
    """
    width = hidden_size
    row = head.row_bytes(width, blocks)
    if head.kind == DENSE:
        logits = batch * vocab_size
        return [
            Work(DENSE_HEAD, vocab_size * row, 2 * logits * width, head.precision, 2 * logits * _FLOAT, compared=logits)
        ]
    assert head.centroid_precision is not None
    clusters, candidates = head.num_clusters, batch * head.opened * head.cluster_size
    centroid = blocks.row_bytes(width, head.centroid_precision) + 2 * _FLOAT
    # Operators of their own gather the rows of every state, though several states may have chosen the same.
    opened = head.distinct(batch) if head.fused else batch * head.opened
    slots = opened * head.cluster_size
    read, products, precision = slots * row, 2.0 * candidates * width, head.precision
    halves = halves and head.fused
    scored = float(clusters * centroid)
    if halves and head.centroid_precision == "int8":
        scored += (min(clusters, batch * head.num_probes) - clusters / 2) * width
    rescored = min(NUM_RESCORED * batch, candidates)
    if halves and head.precision == "int8":
        read = slots * (row - width / 2) + rescored * width / 2
    elif head.low_bit_rows is not None:
        read = slots * blocks.row_bytes(width, head.low_bit_rows) + rescored * row
        products, precision = products + 2 * rescored * width, head.low_bit_rows
    copied = 2.0 * candidates * _FLOAT
    if not head.fused:
        copied += 2 * candidates * (row + (width * _FLOAT if widened and head.precision != "fp32" else 0))
        if widened and head.precision == "int8":  # products before a block's scale comes to their sum
            copied += 2 * candidates * width * _FLOAT
    return [
        Work(
            CENTROIDS,
            scored,
            2.0 * batch * clusters * width,
            head.centroid_precision,
            copied_bytes=2.0 * batch * clusters * _FLOAT,
        ),
        Work(TOP_K, 0, compared=batch * clusters),
        Work(GATHER_DOT, read + slots * _ID, products, precision, copied, compared=candidates),
    ]


def body_work(body: BodyShape, *, batch: int, positions: int, blocks: Blocks, cache_item_bytes: int) -> Work:
    """Count the body of a step.

    Operations are those of the weights; attention over the cache is a few percent of them in contexts of some thousand
    positions, and moves its bytes, which are counted.

    Args:
        body: The body.
        batch: B, texts side by side.
        positions: Tokens of each in the cache.
        blocks: How low-bit weights are stored.
        cache_item_bytes: Bytes of a number in the cache.
    """
    cache = batch * body.cache_bytes(positions, cache_item_bytes)
    return Work(BODY, body.weight_bytes(blocks) + cache, 2.0 * batch * body.weights, body.precision)


def weights_bytes(model: ModelShape, head: HeadShape, blocks: Blocks) -> int:
    """Bytes of all weights that a device holds: body, rows, centroids, and an untied input embedding.

    The rows of a two-stage head are stored once, whatever a step reads of them.
    """
    row = head.row_bytes(model.hidden_size, blocks)
    total = model.vocab_size * row
    if head.kind != DENSE:
        assert head.centroid_precision is not None
        slots = (head.num_clusters + head.always_clusters) * head.cluster_size
        total = slots * (row + _ID) + model.vocab_size * _ID
        total += head.num_clusters * (blocks.row_bytes(model.hidden_size, head.centroid_precision) + 2 * _FLOAT)
        if head.low_bit_rows is not None:
            total += slots * blocks.row_bytes(model.hidden_size, head.low_bit_rows)
    if model.body is not None:
        total += model.body.weight_bytes(blocks)
        if not model.tied or (head.kind == DENSE and head.precision in ("int8", "int4")):
            total += model.vocab_size * blocks.row_bytes(model.hidden_size, "fp16")
    return round(total)
