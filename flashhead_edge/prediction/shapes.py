"""Shapes of a model and its head: all that a prediction reads of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flashhead_edge.errors import OptionError, did_you_mean

#: Bits of a weight, and whether a block of weights has a scale.
PRECISIONS = {"fp32": (32, False), "fp16": (16, False), "int8": (8, True), "int4": (4, True)}
TWO_STAGE, DENSE = "two-stage", "dense"


@dataclass(frozen=True)
class Blocks:
    """How low-bit weights are stored: so many of them share a scale of so many bytes."""

    size: int = 32
    scale_bytes: float = 2

    def row_bytes(self, width: int, precision: str) -> float:
        """Bytes of a row of ``width`` weights.

        Raises:
            OptionError: There is no such precision.
        """
        check_precision(precision)
        bits, scaled = PRECISIONS[precision]
        if not scaled:
            return width * bits / 8
        blocks = math.ceil(width / self.size)
        return blocks * (self.size * bits / 8 + self.scale_bytes)


@dataclass(frozen=True)
class BodyShape:
    """The decoder without input embedding and head.

    Attributes:
        num_layers: Decoder layers.
        num_kv_heads: Heads of the key-value cache in a layer.
        head_dim: Length of a key.
        weights: Weights that a step multiplies with.
        precision: How they are stored.
        stored_bytes: Their bytes where a file says so; else they follow from ``weights`` and ``precision``.
        sliding_window: Positions that the layers with a sliding window look back.
        num_sliding_layers: How many layers have one.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    weights: int
    precision: str
    stored_bytes: int | None = None
    sliding_window: int | None = None
    num_sliding_layers: int = 0

    def weight_bytes(self, blocks: Blocks) -> float:
        """Bytes of the weights."""
        return self.stored_bytes or blocks.row_bytes(self.weights, self.precision)

    def cache_bytes(self, positions: int, item_bytes: int) -> int:
        """Bytes of keys and values that a step reads of one text with so many positions."""
        window = min(positions, self.sliding_window or positions)
        seen = (self.num_layers - self.num_sliding_layers) * positions + self.num_sliding_layers * window
        return 2 * seen * self.num_kv_heads * self.head_dim * item_bytes


@dataclass(frozen=True)
class ModelShape:
    """A model.

    Attributes:
        name: What people call it.
        vocab_size: V.
        hidden_size: H.
        body: None for a head alone.
        tied: Whether the input embedding is the head's matrix.
    """

    name: str
    vocab_size: int
    hidden_size: int
    body: BodyShape | None = None
    tied: bool = True


@dataclass(frozen=True)
class HeadShape:
    """A head over V rows of H.

    Attributes:
        kind: "two-stage" or "dense".
        precision: How the rows are stored that give exact logits.
        num_clusters: K; 0 for a dense head, like the next three.
        cluster_size: C.
        num_probes: P.
        always_clusters: Clusters opened at every step besides.
        centroid_precision: How centroids are stored; None for a dense head.
        low_bit_rows: "int8" or "int4" for rows that are scored first; the best are then read as stored.
        fused: Whether rows are scored where they lie, once for all states of a batch (the native library, the GPU
            kernels); else each state's are gathered, widened and multiplied by operators of their own.
        agreement: Share of held-out states at which it takes the dense head's token, where a bundle says so.
    """

    kind: str
    precision: str = "fp16"
    num_clusters: int = 0
    cluster_size: int = 0
    num_probes: int = 0
    always_clusters: int = 0
    centroid_precision: str | None = None
    low_bit_rows: str | None = None
    fused: bool = True
    agreement: float | None = None

    def __post_init__(self) -> None:
        for precision in (self.precision, self.centroid_precision, self.low_bit_rows):
            if precision is not None:
                check_precision(precision)
        if self.kind == TWO_STAGE and not 1 <= self.num_probes <= self.num_clusters:
            raise OptionError(
                "The number of probes is out of range.",
                found=self.num_probes,
                expected=f"1 to {self.num_clusters} (the number of clusters)",
            )

    def row_bytes(self, width: int, blocks: Blocks) -> float:
        """Bytes of a row that gets an exact logit; rows of a two-stage head are in blocks of 32 everywhere."""
        return (blocks if self.kind == DENSE else Blocks()).row_bytes(width, self.precision)

    @property
    def opened(self) -> int:
        """Clusters that a state opens."""
        return self.num_probes + self.always_clusters

    def distinct(self, batch: int) -> float:
        """Clusters that a batch is expected to open, ``A + K (1 - (1 - P / K)^B)``.

        The states of a batch are taken to choose independently. Texts have tokens in common, so this is an upper limit.
        """
        missed = (1 - self.num_probes / self.num_clusters) ** batch
        return self.always_clusters + self.num_clusters * (1 - missed)


def check_precision(precision: str) -> None:
    """Refuse a precision that nobody stores weights in.

    Raises:
        OptionError: There is no such precision.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"There is no precision {precision!r}.", hint=did_you_mean(precision, PRECISIONS))
