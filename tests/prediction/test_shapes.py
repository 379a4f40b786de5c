from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashhead_edge.errors import OptionError
from flashhead_edge.prediction.shapes import Blocks, BodyShape, HeadShape


@pytest.mark.parametrize(
    ("precision", "size"), [("fp32", 2560), ("fp16", 1280), ("int8", 640 + 20 * 2), ("int4", 320 + 20 * 2)]
)
def test_bytes_of_a_row(precision, size):
    assert Blocks().row_bytes(640, precision) == size


def test_the_last_block_of_a_row_is_stored_whole():
    assert Blocks().row_bytes(33, "int8") == 2 * (32 + 2)


def test_an_unknown_precision_is_refused():
    with pytest.raises(OptionError, match="did you mean 'int8'"):
        Blocks().row_bytes(8, "int9")


@pytest.mark.parametrize("probes", [0, 9])
def test_probes_out_of_range(probes):
    with pytest.raises(OptionError, match="1 to 8"):
        HeadShape("two-stage", num_clusters=8, cluster_size=4, num_probes=probes, centroid_precision="int8")


@given(st.integers(1, 64), st.integers(1, 500), st.integers(0, 10))
def test_a_batch_opens_at_least_one_states_clusters_and_at_most_all(batch, probes, always):
    head = HeadShape("two-stage", "fp16", 500, 8, probes, always, "int8")
    assert head.opened - 1e-6 <= head.distinct(batch) <= min(batch * probes, 500) + always + 1e-6


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_a_longer_context_never_has_a_smaller_cache(first, second):
    body = BodyShape(6, 2, 64, 1000, "int4", sliding_window=512, num_sliding_layers=4)
    short, long = sorted((first, second))
    assert body.cache_bytes(short, 4) <= body.cache_bytes(long, 4)
