from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashhead_edge.errors import OptionError
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.prediction.heads import HEADS, HeadOptions, named_head, two_stage_head
from flashhead_edge.prediction.shapes import HeadShape

OWN = HeadShape("two-stage", "fp16", 500, 32, 40, 3, "int8", "int4", agreement=0.99)


def test_default_head_is_that_of_export():
    head = two_stage_head(262_144)
    assert (head.num_clusters, head.cluster_size) == (8192, 32)
    assert head.num_probes == ExportOptions().probes(262_144)
    assert head.always_clusters * 32 == ExportOptions().index.always_slots(262_144)


@given(st.integers(64, 300_000), st.integers(2, 32))
def test_clusters_hold_the_vocabulary(vocab, size):
    head = two_stage_head(vocab, cluster_size=size, num_probes=1)
    assert vocab <= head.num_clusters * head.cluster_size < vocab + head.num_clusters + size


@pytest.mark.parametrize("name", HEADS)
def test_every_name_is_a_head(name):
    head = named_head(name, 16_000, HeadOptions())
    assert head.kind == name.partition("-")[0] if name.startswith("dense") else "two-stage"
    assert head.fused == (name != "two-stage-portable")


def test_a_bundles_head_is_taken_as_it_is():
    assert named_head("two-stage", 16_000, HeadOptions(), OWN) == OWN


def test_standard_operators_read_no_low_bit_rows():
    head = named_head("two-stage-portable", 16_000, HeadOptions(), OWN)
    assert (head.low_bit_rows, head.fused, head.num_probes) == (None, False, 40)


def test_other_probes_than_the_bundles_say_nothing_of_agreement():
    head = named_head("two-stage", 16_000, HeadOptions(num_probes=80), OWN)
    assert (head.num_probes, head.num_clusters, head.agreement) == (80, 500, None)


def test_another_cluster_size_is_a_head_of_its_own():
    head = named_head("two-stage", 16_000, HeadOptions(cluster_size=16, cluster_precision="int8"), OWN)
    assert (head.num_clusters, head.cluster_size, head.precision) == (1000, 16, "int8")
    assert head.num_probes == two_stage_head(16_000, cluster_size=16).num_probes


def test_unknown_heads_are_refused():
    with pytest.raises(OptionError, match="did you mean"):
        named_head("dense-int3", 16_000, HeadOptions())
