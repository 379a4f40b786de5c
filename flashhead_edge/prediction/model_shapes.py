"""Shapes of a bundle, and of a model that is not exported yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flashhead_edge import layout
from flashhead_edge.errors import SourceError, UnsupportedModelError
from flashhead_edge.prediction.shapes import TWO_STAGE, Blocks, BodyShape, HeadShape, ModelShape, check_precision

if TYPE_CHECKING:
    from flashhead_edge.bundle import Bundle
    from flashhead_edge.export.model_config import ModelConfig


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
