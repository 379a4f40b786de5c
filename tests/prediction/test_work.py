from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashhead_edge.cli.inspect import head_bytes_per_step
from flashhead_edge.prediction.model_shapes import bundle_shape
from flashhead_edge.prediction.shapes import Blocks, BodyShape, HeadShape, ModelShape
from flashhead_edge.prediction.work import body_work, head_work, weights_bytes
from tests.prediction.heads import two_stage_heads

GEMMA = (262_144, 640)
HEAD = HeadShape("two-stage", "fp16", 8192, 32, 365, 9, "int8")
#: Bytes of a centroid's bias and offset, and of a slot's token id, which are no weights.
_CENTROID_EXTRA, _SLOT_EXTRA = 8, 4


def stages(head, batch=1, size=GEMMA, **options):
    return {work.stage: work for work in head_work(*size, head, batch=batch, blocks=Blocks(), **options)}


def test_dense_head_reads_every_row_once():
    (work,) = stages(HeadShape("dense", "int8"), batch=4).values()
    assert work.stage == "dense head"
    assert work.bytes == 262_144 * (640 + 20 * 2)
    assert work.operations == 2 * 262_144 * 640 * 4


def test_two_stage_head_of_gemma():
    found = stages(HEAD)
    assert list(found) == ["centroids", "top-k", "gather + dot"]
    assert found["centroids"].bytes == 8192 * (640 + 40 + 8)
    assert found["centroids"].operations == 2 * 8192 * 640
    assert found["gather + dot"].bytes == (365 + 9) * 32 * (1280 + 4)
    assert found["gather + dot"].operations == 2 * (365 + 9) * 32 * 640


def test_weights_of_a_step_are_those_that_inspect_reports(whole_bundle):
    model, head = bundle_shape(whole_bundle())
    found = stages(head, size=(model.vocab_size, model.hidden_size))
    extra = head.num_clusters * _CENTROID_EXTRA + head.opened * head.cluster_size * _SLOT_EXTRA
    assert sum(work.bytes for work in found.values()) - extra == head_bytes_per_step(whole_bundle().manifest)


def test_low_bit_rows_are_read_in_place_of_rows_and_24_rows_besides():
    work = stages(replace(HEAD, low_bit_rows="int4"))["gather + dot"]
    assert work.bytes == 374 * 32 * (320 + 40 + 4) + 24 * 1280
    assert work.precision == "int4"


def test_greedy_steps_of_the_native_library_read_halves():
    int8 = replace(HEAD, precision="int8")
    whole, halves = stages(int8), stages(int8, halves=True)
    assert whole["gather + dot"].bytes == 374 * 32 * (640 + 40 + 4)
    assert halves["gather + dot"].bytes == 374 * 32 * (320 + 40 + 4) + 24 * 320
    assert halves["centroids"].bytes == 8192 * (320 + 40 + 8) + 365 * 640
    apart = replace(int8, fused=False)
    assert stages(apart, halves=True) == stages(apart)
    assert stages(HEAD, halves=True)["gather + dot"] == stages(HEAD)["gather + dot"]


def test_fused_kernels_read_a_cluster_once_for_all_states():
    fused, apart = (stages(replace(HEAD, fused=fused), batch=8)["gather + dot"] for fused in (True, False))
    assert fused.bytes < apart.bytes == 8 * stages(HEAD)["gather + dot"].bytes
    assert fused.copied_bytes == 2 * 8 * 374 * 32 * 4 < apart.copied_bytes


def test_widened_rows_are_copied_twice():
    portable = replace(HEAD, fused=False)
    rows = 374 * 32 * 640
    logits = stages(HEAD)["gather + dot"].copied_bytes
    assert stages(portable)["gather + dot"].copied_bytes - logits == 2 * rows * (2 + 4)
    assert stages(portable, widened=False)["gather + dot"].copied_bytes - logits == 2 * rows * 2


@given(two_stage_heads((None, "int8", "int4")), st.integers(1, 32), st.integers(1, 32))
def test_a_larger_batch_never_needs_less(head, first, second):
    vocab, shape = head
    small, large = (stages(shape, batch, (vocab, 128)) for batch in sorted((first, second)))
    for stage, work in small.items():
        assert work.bytes <= large[stage].bytes + 1e-6
        assert work.operations <= large[stage].operations


@given(two_stage_heads(), st.integers(1, 9000))
def test_more_probes_never_need_less(head, probes):
    vocab, shape = head
    other = replace(shape, num_probes=min(probes, shape.num_clusters))
    few, many = sorted((shape, other), key=lambda candidate: candidate.num_probes)
    assert stages(few, size=(vocab, 64))["gather + dot"].bytes <= stages(many, size=(vocab, 64))["gather + dot"].bytes


@given(two_stage_heads(), st.integers(1, 16))
def test_all_clusters_opened_read_what_a_dense_head_reads_and_centroids(head, batch):
    vocab, shape = head
    opened = replace(shape, num_probes=shape.num_clusters)
    (dense,) = stages(HeadShape("dense", shape.precision), batch, (vocab, 64)).values()
    found = stages(opened, batch, (vocab, 64))
    assert sum(work.bytes for work in found.values()) > dense.bytes
    assert sum(work.operations for work in found.values()) > dense.operations


def test_body_reads_weights_once_and_each_texts_cache():
    body = BodyShape(10, 2, 64, 1_000_000, "int8")
    work = body_work(body, batch=3, positions=100, blocks=Blocks(), cache_item_bytes=4)
    assert work.bytes == 1_000_000 * (1 + 2 / 32) + 3 * 2 * 10 * 2 * 64 * 100 * 4
    assert work.operations == 2 * 1_000_000 * 3


@pytest.mark.parametrize(
    ("tied", "head", "tables"),
    [
        (True, HeadShape("dense", "fp16"), 1),
        (False, HeadShape("dense", "fp16"), 2),
        # A table of codes is no embedding, so a tied model needs its rows besides.
        (True, HeadShape("dense", "int8"), 1 + (1 + 2 / 32) / 2),
    ],
    ids=["tied", "untied", "int8"],
)
def test_weights_in_memory(tied, head, tables):
    body = BodyShape(1, 1, 1, 32_000, "fp32")
    model = ModelShape("model", 1000, 64, body, tied)
    assert weights_bytes(model, head, Blocks()) == 1000 * 64 * 2 * tables + 128_000


def test_a_two_stage_head_holds_every_row_once_whatever_it_opens():
    model = ModelShape("model", *GEMMA)
    few, many = (weights_bytes(model, replace(HEAD, num_probes=probes), Blocks()) for probes in (1, 8192))
    assert few == many
    assert weights_bytes(model, replace(HEAD, low_bit_rows="int8"), Blocks()) - few == 8201 * 32 * (640 + 40)
