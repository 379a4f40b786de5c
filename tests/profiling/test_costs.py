"""Bytes and operations of the stages, against what the files of a real bundle hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flashhead_edge import Bundle, layout
from flashhead_edge.profiling import record
from flashhead_edge.profiling.costs import Cost, bound_of, cache_bytes, rank_of, stage_costs
from tests.tiny_heads import head_bundle, int8_head, random_index


def test_costs_of_a_bundle(whole_bundle: Callable[..., Bundle]) -> None:
    bundle = whole_bundle()
    manifest = bundle.manifest
    assert manifest.body is not None
    costs = stage_costs(manifest, head="two-stage", batch=1, positions=10)
    assert set(costs) == {record.BODY, record.CENTROIDS, record.GATHER_DOT}
    cache = cache_bytes(manifest.body, batch=1, positions=10)
    assert costs[record.BODY].bytes == (bundle.path / layout.BODY_DATA).stat().st_size + cache
    index = bundle.index()
    blocks = -(-index.hidden_size // 32)
    stored = index.num_clusters * (index.hidden_size + 2 * blocks)  # int8 codes and their scales
    assert costs[record.CENTROIDS].bytes == stored + index.centroid_bias.nbytes + index.selection_offset.nbytes
    rows = bundle.table(layout.ROWS)
    candidates = index.num_candidates(manifest.index.num_probes)
    assert costs[record.GATHER_DOT].bytes == candidates * (rows[0, 0].nbytes + 4)
    assert costs[record.GATHER_DOT].operations == 2 * candidates * manifest.hidden_size


def test_projected_centroids_are_narrower(whole_bundle: Callable[..., Bundle]) -> None:
    bundle = whole_bundle(centroid_rank=16)
    index, rank = bundle.index(), rank_of(bundle)
    assert rank == 16
    assert rank_of(whole_bundle()) is None
    cost = stage_costs(bundle.manifest, head="two-stage", batch=1, positions=0, rank=rank)[record.CENTROIDS]
    wide = stage_costs(bundle.manifest, head="two-stage", batch=1, positions=0)[record.CENTROIDS]
    assert cost.operations == 2 * 16 * (index.num_clusters + index.hidden_size)
    assert wide.operations == 2 * index.hidden_size * index.num_clusters


def test_a_greedy_step_reads_halves(tmp_path: Path, whole_bundle: Callable[..., Bundle]) -> None:
    """Of int8 centroids and rows, and the best of them whole."""
    head = int8_head(300, 64)
    index = random_index(head, 8, always=(1, 2))
    bundle = head_bundle(tmp_path / "b", head, index, 5, centroids="int8", rows="int8")
    whole, halves = (
        stage_costs(bundle.manifest, head="two-stage", batch=1, positions=0, greedy=greedy, rescored=16)
        for greedy in (False, True)
    )
    candidates = index.num_candidates(5)
    assert whole[record.GATHER_DOT].bytes == candidates * (64 + 4 + 4)
    assert halves[record.GATHER_DOT].bytes == candidates * (32 + 4 + 4) + 16 * 32
    saved = whole[record.CENTROIDS].bytes - halves[record.CENTROIDS].bytes
    assert saved == index.num_clusters * 32 - 5 * 64
    manifest = whole_bundle().manifest  # rows of float16 are read as they are
    costs = [stage_costs(manifest, head="two-stage", batch=1, positions=0, greedy=greedy) for greedy in (False, True)]
    assert costs[0][record.GATHER_DOT] == costs[1][record.GATHER_DOT]


def test_a_batch_reads_weights_once(whole_bundle: Callable[..., Bundle]) -> None:
    manifest = whole_bundle().manifest
    one, four = (stage_costs(manifest, head="two-stage", batch=batch, positions=0) for batch in (1, 4))
    assert four[record.BODY].bytes == one[record.BODY].bytes
    assert four[record.BODY].operations == pytest.approx(4 * one[record.BODY].operations, rel=1e-6)
    assert four[record.GATHER_DOT].bytes == 4 * one[record.GATHER_DOT].bytes


def test_a_dense_head_reads_the_table(whole_bundle: Callable[..., Bundle]) -> None:
    bundle = whole_bundle()
    costs = stage_costs(bundle.manifest, head="dense", batch=1, positions=0)
    assert costs[record.DENSE_HEAD].bytes == bundle.table(layout.ROWS).nbytes


def test_the_roof() -> None:
    assert bound_of(Cost(1000, 1000), 10.0, 20.0) == "bandwidth"
    assert bound_of(Cost(1000, 3000), 10.0, 20.0) == "compute"
    assert bound_of(Cost(1000, 3000), None, 20.0) is None
