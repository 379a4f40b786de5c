"""OpenVINO executes on the device that was asked for, in float32, or says why not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import BundleError, OptionalDependencyError, OptionError, RuntimeUnavailableError
from flashhead_edge.runtimes import open_head
from flashhead_edge.runtimes.base import HeadShape
from flashhead_edge.runtimes.openvino import OpenVinoHead
from tests.tiny_heads import head_bundle, random_head, random_index, random_states


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    head = random_head(60, 32)
    return head_bundle(tmp_path / "bundle", head, random_index(head, 4, always=(1,)), 3)


def test_it_runs_where_it_says(bundle: Bundle) -> None:
    assert open_head(bundle, "openvino").providers == ("CPU",)


def test_it_says_what_onnx_runtime_says(bundle: Bundle) -> None:
    """Closer than bfloat16, in which OpenVINO would compute on some CPUs."""
    states = random_states(20, 32)
    mine, theirs = open_head(bundle, "openvino", threads=1).run(states), open_head(bundle).run(states)
    np.testing.assert_array_equal(mine.token_ids, theirs.token_ids)
    np.testing.assert_allclose(mine.cluster_scores, theirs.cluster_scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", ["AUTO", "AUTO:CPU", "HETERO:GPU,CPU", "MULTI:CPU"])
def test_devices_that_choose_by_themselves_are_refused(bundle: Bundle, device: str) -> None:
    with pytest.raises(OptionError, match="by itself"):
        open_head(bundle, "openvino", device=device)


def test_a_device_that_is_not_here_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(RuntimeUnavailableError, match="no device NPU9") as caught:
        open_head(bundle, "openvino", device="NPU9")
    assert "CPU" in str(caught.value.found)


def test_threads_are_checked(bundle: Bundle) -> None:
    with pytest.raises(OptionError, match="threads"):
        open_head(bundle, "openvino", threads=0)


def test_without_the_package(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(OptionalDependencyError, match="openvino"):
        open_head(bundle, "openvino")


def test_a_damaged_graph_is_named(bundle: Bundle, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes((bundle.path / layout.HEAD_GRAPH).read_bytes()[:100])
    with pytest.raises(BundleError, match=r"broken\.onnx"):
        OpenVinoHead(broken, HeadShape.of_bundle(bundle.manifest))
