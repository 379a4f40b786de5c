"""The heads that are timed are the package's own, with something else to read after them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from benchmarks.head_timing import Case, HeadCall, quantize_repeated, random_rows, time_cases, write_graphs
from flashhead_edge import native
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.runtimes.session import open_session

TWO_STAGE = Case("standard", 256, 32, batch=2, cluster_size=8, num_probes=4, centroid_precision="int8")
DENSE = Case("dense", 256, 32, batch=2, precision="int8")
CASES = [TWO_STAGE, DENSE, *([replace(TWO_STAGE, head="native")] if native.is_available() else [])]


@pytest.fixture
def eviction():
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ones((2, 1 << 16), np.float32))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.head)
def test_a_call_takes_time(case, tmp_path, eviction):
    call = HeadCall(write_graphs([case], tmp_path)[case], case, 2, eviction)
    assert all(seconds is None or 0 < seconds < 10 for seconds in (call.seconds() for _ in range(5)))


def test_what_is_read_afterwards_changes_no_token(tmp_path, eviction):
    (graph,) = write_graphs([DENSE], tmp_path).values()
    states = np.random.default_rng(0).standard_normal((3, 32), np.float32)
    feed = {"hidden_states": states, "eviction": eviction.numpy()}
    tokens, most = open_session(graph).run(["token_ids", "evicted"], feed)
    assert np.array_equal(most, [[1], [1]])
    plain = open_session(graph.with_name("dense.onnx")).run(["token_ids"], {"hidden_states": states})[0]
    assert np.array_equal(tokens, plain)


@pytest.mark.parametrize("bits", [8, 4])
def test_repeated_rows_are_quantized_as_all_rows_are(bits):
    rows = random_rows(5000, 40)
    every, repeated = quantize_rows(rows, bits), quantize_repeated(rows, bits)
    assert np.array_equal(every.codes, repeated.codes)
    assert np.array_equal(every.scales, repeated.scales)


def test_cases_that_differ_in_batch_or_probes_share_data(tmp_path):
    others = [replace(TWO_STAGE, batch=8), replace(TWO_STAGE, num_probes=2)]
    graphs = write_graphs([TWO_STAGE, *others], tmp_path)
    assert len({path.parent for path in graphs.values()}) == 1
    assert graphs[TWO_STAGE] == graphs[others[0]] != graphs[others[1]]


def test_time_that_has_run_out_is_said(tmp_path):
    graphs = write_graphs([DENSE], tmp_path)
    with pytest.raises(SystemExit, match="too busy to measure dense"):
        time_cases(graphs, threads=2, calls=1, limit_s=0)
