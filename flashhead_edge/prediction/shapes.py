"""Shapes of a model and its head: all that a prediction reads of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flashhead_edge import layout
from flashhead_edge.errors import OptionError, SourceError, UnsupportedModelError, did_you_mean

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.export.model_config import ModelConfig

#: Bits of a weight, and whether a block of weights has a scale.
PRECISIONS = {"fp32": (32, False), "fp16": (16, False), "int8": (8, True), "int4": (4, True)}
TWO_STAGE, DENSE = "two-stage", "dense"


@dataclass(frozen=True)
class Blocks:
    """How low-bit weights are stored: so many of them share a scale of so many bytes."""

    size: int = 32
    scale_bytes: float = 4

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


def bundle_shape(bundle: Bundle) -> tuple[ModelShape, HeadShape]:
    """Shapes of a bundle's model and of its two-stage head, by the manifest alone."""
    manifest, index = bundle.manifest, bundle.manifest.index
    body = None
    if manifest.body is not None:
        record = manifest.body
        stored = manifest.files[layout.BODY_DATA].bytes
        weights = round(stored / Blocks().row_bytes(1 << 20, record.precision) * (1 << 20))
        body = BodyShape(
            record.num_layers, record.num_kv_heads, record.head_dim, weights, record.precision, stored_bytes=stored
        )
    codes = manifest.tables.get(layout.LOW_BIT_CODES)
    low_bit = None if codes is None else ("int8" if codes.shape[-1] == Blocks().size else "int4")
    head = HeadShape(
        TWO_STAGE,
        index.cluster_precision,
        num_clusters=index.num_clusters,
        cluster_size=index.cluster_size,
        num_probes=index.num_probes,
        always_clusters=index.always_scored // index.cluster_size,
        centroid_precision=index.centroid_precision,
        low_bit_rows=low_bit,
        agreement=index.quality.agreement,
    )
    return ModelShape(manifest.source.name, manifest.vocab_size, manifest.hidden_size, body, manifest.tied), head


def config_shape(path: Path, *, body_precision: str) -> ModelShape:
    """Shape of a model of gated feed-forward layers from its Hugging Face ``config.json``.

    Args:
        path: The file, or the folder that holds it.
        body_precision: How the body's weights are stored.

    Raises:
        SourceError: The file cannot be read, or lacks a size.
        UnsupportedModelError: A step does not multiply with all weights, or layers are not all alike: experts, or
            layers without attention.
    """
    from flashhead_edge.export.model_config import ModelConfig

    folder = path if path.is_dir() else path.parent
    return model_shape(ModelConfig.from_folder(folder), folder.resolve().name, body_precision=body_precision)


def model_shape(config: ModelConfig, name: str, *, body_precision: str) -> ModelShape:
    """The same of a configuration that is read already.

    Args:
        config: The configuration.
        name: What to call the model.
        body_precision: How the body's weights are stored.

    Raises:
        SourceError: As :func:`config_shape`.
        UnsupportedModelError: As :func:`config_shape`.
    """
    check_precision(body_precision)
    for key in ("num_local_experts", "num_experts", "n_routed_experts", "mamba_d_state", "linear_num_key_heads"):
        if config.get(key):
            raise UnsupportedModelError(
                "The weights that a step of this model reads do not follow from its config.json.",
                found=f"{key} {config.get(key)}",
                expected="layers of attention and one gated feed-forward network each",
                hint="give --body-weights, and --num-layers --num-kv-heads --head-dim for the cache",
            )

    def size(key: str, otherwise: float | None = None) -> int:
        value = config.number(key)
        value = otherwise if value is None else value
        if value is None or value < 1:
            raise SourceError(f"config.json has no usable {key}.", found=value, expected="1 or more")
        return int(value)

    hidden, layers, heads = size("hidden_size"), size("num_hidden_layers"), size("num_attention_heads")
    kv_heads = size("num_key_value_heads", heads)
    head_dim = size("head_dim", hidden / heads)
    attention = hidden * head_dim * (heads + 2 * kv_heads) + heads * head_dim * hidden
    weights = layers * (attention + 3 * hidden * size("intermediate_size"))
    kinds = config.get("layer_types")
    pattern = config.number("sliding_window_pattern")
    if isinstance(kinds, list):
        sliding = sum(kind == "sliding_attention" for kind in kinds)
    else:
        sliding = layers - layers // int(pattern) if pattern else 0
    window = config.number("sliding_window")
    body = BodyShape(
        layers,
        kv_heads,
        head_dim,
        weights,
        body_precision,
        sliding_window=None if window is None else int(window),
        num_sliding_layers=sliding if window is not None else 0,
    )
    return ModelShape(name, size("vocab_size"), hidden, body, not config.says_untied)


def check_precision(precision: str) -> None:
    """Refuse a precision that nobody stores weights in.

    Raises:
        OptionError: There is no such precision.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"There is no precision {precision!r}.", hint=did_you_mean(precision, PRECISIONS))
