"""Clusters in the layout of the reference plugin, written and read."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from flashhead_edge.errors import BundleError, OptionError
from flashhead_edge.runtimes.vllm.reference_cache import (
    CACHE_FILE,
    load_reference_cache,
    save_reference_cache,
    scaled_to_rows,
)
from flashhead_edge.runtimes.vllm.settings import read_settings
from flashhead_edge.runtimes.vllm.shard import build_shard
from tests.tiny_heads import random_head, random_index, random_states, table_rows

VOCAB, HIDDEN, CLUSTERS = 149, 40, 11


def reference_file(path, *, seed=0):
    """As the reference plugin's makers write it, with clusters of any size and one of none."""
    random = np.random.default_rng(seed)
    rows = random_head(VOCAB, HIDDEN, seed=seed).rows
    clusters = random.integers(0, CLUSTERS - 1, size=VOCAB) ** 2 // (CLUSTERS - 1)
    centroids = np.zeros((CLUSTERS, HIDDEN), np.float32)
    for cluster in np.unique(clusters):
        centroids[cluster] = rows[clusters == cluster].mean(axis=0)
    save_file(
        {
            "centroids": np.ascontiguousarray(centroids.T[None, None]),
            "cluster_assignments": clusters.astype(np.int64),
        },
        path,
    )
    return rows, clusters, centroids


def test_every_token_is_in_its_cluster(tmp_path):
    _, clusters, _ = reference_file(tmp_path / CACHE_FILE)
    index = load_reference_cache(tmp_path / CACHE_FILE, [5, 77, 10_000])
    assert (index.vocab_size, index.hidden_size, index.num_clusters) == (VOCAB, HIDDEN, CLUSTERS)
    assert sorted(index.token_order[index.token_order >= 0].tolist()) == list(range(VOCAB))
    assert index.always_scored.tolist() == [5, 77]
    for cluster in range(CLUSTERS):
        ids = index.token_order[cluster]
        expected = [token for token in np.flatnonzero(clusters == cluster).tolist() if token not in (5, 77)]
        assert ids[ids >= 0].tolist() == expected


@pytest.mark.parametrize("probes", [1, 3, CLUSTERS])
@pytest.mark.parametrize("library", ["0", "1"])
def test_the_clusters_of_the_nearest_directions_are_opened(tmp_path, monkeypatch, probes, library):
    monkeypatch.setenv("FLASHHEAD_EDGE_NATIVE", library)
    rows, clusters, centroids = reference_file(tmp_path / CACHE_FILE)
    index = load_reference_cache(tmp_path / CACHE_FILE)
    shard = build_shard(index, torch.from_numpy(rows), None, 0, VOCAB, probes, scale_centroids=True)
    states = random_states(5, HIDDEN)
    scored = shard.score(torch.from_numpy(states))
    logits = shard.fill(scored, scored.best).numpy()
    lengths = np.linalg.norm(centroids, axis=1)
    cosines = states @ (centroids / np.where(lengths > 0, lengths, 1)[:, None]).T
    for row, state, cosine in zip(logits, states, cosines, strict=True):
        opened = np.isin(clusters, np.argsort(-cosine)[:probes])
        np.testing.assert_allclose(row[opened], rows[opened] @ state, rtol=1e-4, atol=1e-4)
        assert (row[~opened] < row[opened].max()).all()


def test_centroids_get_the_scale_of_rows(tmp_path):
    rows, clusters, centroids = reference_file(tmp_path / CACHE_FILE)
    index = load_reference_cache(tmp_path / CACHE_FILE)
    scaled = scaled_to_rows(index, torch.from_numpy(rows), 0)
    filled = np.linalg.norm(centroids, axis=1) > 0
    np.testing.assert_allclose(np.linalg.norm(index.centroids[filled], axis=1), 1, rtol=1e-5)
    sizes = np.bincount(clusters, minlength=CLUSTERS)
    expected = (sizes * np.linalg.norm(centroids, axis=1)).sum() / VOCAB
    np.testing.assert_allclose(np.linalg.norm(scaled.centroids[filled], axis=1), expected, rtol=1e-4)


def test_what_we_write_holds_the_same_clusters(tmp_path):
    head = random_head(VOCAB, HIDDEN)
    index = random_index(head, 6, always=(3, 50))
    save_reference_cache(index, table_rows(head, index), tmp_path / CACHE_FILE)
    found = load_reference_cache(tmp_path / CACHE_FILE)
    sets = [{frozenset(ids[ids >= 0].tolist()) for ids in table.token_order} for table in (index, found)]
    assert sets[0] - {frozenset()} == sets[1] - {frozenset()}


@pytest.mark.parametrize(
    "change",
    [
        {"centroids": np.zeros((HIDDEN, CLUSTERS), np.float32)},
        {"centroids": np.zeros((1, 1, HIDDEN, 2), np.float32)},
        {"cluster_assignments": np.zeros(VOCAB, np.float32)},
        {"cluster_assignments": np.full(VOCAB, -1, np.int64)},
        {"cluster_assignments": None},
    ],
)
def test_other_files_are_refused(tmp_path, change):
    tensors = {
        "centroids": np.ones((1, 1, HIDDEN, CLUSTERS), np.float32),
        "cluster_assignments": np.arange(VOCAB) % CLUSTERS,
    } | change
    save_file({name: array for name, array in tensors.items() if array is not None}, tmp_path / CACHE_FILE)
    with pytest.raises(BundleError, match=CACHE_FILE):
        load_reference_cache(tmp_path / CACHE_FILE)


def test_a_damaged_file_is_refused(tmp_path):
    reference_file(tmp_path / CACHE_FILE)
    (tmp_path / CACHE_FILE).write_bytes((tmp_path / CACHE_FILE).read_bytes()[:-9])
    with pytest.raises(BundleError, match="cannot be read"):
        load_reference_cache(tmp_path / CACHE_FILE)


def test_one_cluster_of_all_is_too_great_for_a_table(tmp_path):
    centroids = np.ones((1, 1, HIDDEN, 100), np.float32)
    save_file({"centroids": centroids, "cluster_assignments": np.zeros(VOCAB, np.int64)}, tmp_path / CACHE_FILE)
    with pytest.raises(BundleError, match="unequal"):
        load_reference_cache(tmp_path / CACHE_FILE)


def served(folder, **settings):
    config = SimpleNamespace(flash_head_cache_dir="flash_head_assets", **settings)
    return SimpleNamespace(
        model=str(folder), revision=None, hf_config=config, get_vocab_size=lambda: VOCAB, get_hidden_size=lambda: HIDDEN
    )


@pytest.mark.parametrize(("special", "always"), [(None, []), (7, [7]), ([7, 1], [1, 7])])
def test_a_folder_for_the_reference_plugin_is_served(tmp_path, special, always):
    (tmp_path / "flash_head_assets").mkdir()
    reference_file(tmp_path / "flash_head_assets" / CACHE_FILE)
    settings = read_settings(served(tmp_path, n_probes=4, flash_head_special_token_ids=special))
    assert settings is not None
    assert (settings.num_probes, settings.scale_centroids) == (4, True)
    assert settings.index.always_scored.tolist() == always


def test_special_ids_that_are_none_are_refused(tmp_path):
    (tmp_path / "flash_head_assets").mkdir()
    reference_file(tmp_path / "flash_head_assets" / CACHE_FILE)
    with pytest.raises(OptionError, match="flash_head_special_token_ids"):
        read_settings(served(tmp_path, flash_head_special_token_ids=["<eos>"]))


def test_our_own_folder_without_its_index_is_not_mistaken_for_one(tmp_path):
    (tmp_path / "flash_head_assets").mkdir()
    reference_file(tmp_path / "flash_head_assets" / CACHE_FILE)
    with pytest.raises(BundleError, match="missing"):
        read_settings(served(tmp_path, flash_head_index_sha256="00"))
