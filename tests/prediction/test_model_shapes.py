from __future__ import annotations

import json

import pytest

from flashhead_edge.errors import SourceError, UnsupportedModelError
from flashhead_edge.prediction.model_shapes import bundle_shape, config_shape

LLAMA = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}


def config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**LLAMA, **changes}))
    return path


def test_shape_of_a_bundle(whole_bundle):
    manifest = whole_bundle().manifest
    model, head = bundle_shape(whole_bundle())
    assert (model.vocab_size, model.hidden_size) == (manifest.vocab_size, manifest.hidden_size)
    body, record = model.body, manifest.body
    assert body is not None
    assert (body.num_layers, body.num_kv_heads) == (record.num_layers, record.num_kv_heads)
    assert body.stored_bytes == manifest.files["body.onnx.data"].bytes
    assert body.weights == body.stored_bytes / 4
    index = manifest.index
    assert (head.num_clusters, head.num_probes) == (index.num_clusters, index.num_probes)
    assert head.opened * head.cluster_size + head.num_clusters == index.rows_scored


def test_shape_of_a_config(tmp_path):
    model = config_shape(config(tmp_path), body_precision="int4")
    # Llama 3.2 1B has 1,235,814,400 parameters: these, the embedding, and 33 norms.
    assert model.body is not None
    assert model.body.weights + 128_256 * 2048 + 33 * 2048 == 1_235_814_400
    assert model.tied
    assert model.body.cache_bytes(100, 2) == 16 * 2 * 8 * 64 * 100 * 2


def test_a_config_may_be_named_by_its_folder(tmp_path):
    config(tmp_path)
    assert config_shape(tmp_path, body_precision="fp16").name == tmp_path.name


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 512, "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 4},
        {"sliding_window": 512, "sliding_window_pattern": 4},
    ],
    ids=["layer_types", "pattern"],
)
def test_sliding_windows_bound_the_cache(tmp_path, changes):
    body = config_shape(config(tmp_path, **changes), body_precision="int4").body
    assert body is not None
    per_position = 2 * 8 * 64 * 4
    assert body.cache_bytes(400, 4) == 16 * 400 * per_position
    assert body.cache_bytes(4000, 4) == (4 * 4000 + 12 * 512) * per_position


def test_a_window_that_no_layer_uses_bounds_nothing(tmp_path):
    body = config_shape(config(tmp_path, sliding_window=512), body_precision="int4").body
    assert body is not None
    assert body.num_sliding_layers == 0


@pytest.mark.parametrize("key", ["num_local_experts", "num_experts", "linear_num_key_heads"])
def test_weights_that_do_not_follow_from_shapes_are_refused(tmp_path, key):
    with pytest.raises(UnsupportedModelError, match=key):
        config_shape(config(tmp_path, **{key: 8}), body_precision="int4")


@pytest.mark.parametrize("value", [None, 0])
def test_a_config_without_a_size_is_refused(tmp_path, value):
    with pytest.raises(SourceError, match="intermediate_size"):
        config_shape(config(tmp_path, intermediate_size=value), body_precision="int4")
