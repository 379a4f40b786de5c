"""ONNX Runtime executes what it was asked to execute, where it was asked to, or says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import BundleError, OptionError, RuntimeUnavailableError
from flashhead_edge.runtimes import RUNTIMES, open_head
from flashhead_edge.runtimes.base import HeadShape
from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
from tests.tiny_heads import head_bundle, random_head, random_index, random_states


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    head = random_head(60, 32)
    return head_bundle(tmp_path / "bundle", head, random_index(head, 4, always=(1,)), 3)


def test_it_is_the_default(bundle: Bundle) -> None:
    assert isinstance(open_head(bundle), OnnxRuntimeHead)


def test_unknown_runtimes_are_refused_with_a_guess(bundle: Bundle) -> None:
    with pytest.raises(OptionError, match=r"did you mean 'onnxruntime'\? Known: onnxruntime, openvino, reference"):
        open_head(bundle, "onxruntime")
    assert set(RUNTIMES) == {"onnxruntime", "openvino", "reference", "tensorrt", "torch"}


def test_providers_are_those_of_the_session(bundle: Bundle) -> None:
    assert open_head(bundle, providers=["CPUExecutionProvider"]).providers == ("CPUExecutionProvider",)


def test_unknown_provider_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(RuntimeUnavailableError, match="has no NoSuchExecutionProvider") as caught:
        open_head(bundle, providers=["NoSuchExecutionProvider", "CPUExecutionProvider"])
    assert "CPUExecutionProvider" in str(caught.value.found)


@pytest.mark.parametrize("others", [[], ["CPUExecutionProvider"]], ids=["alone", "before the CPU"])
def test_a_provider_that_cannot_start_here_is_no_fallback(bundle: Bundle, others: list[str]) -> None:
    for provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider"):
        if provider not in onnxruntime.get_available_providers():
            with pytest.raises(RuntimeUnavailableError, match=provider):
                open_head(bundle, providers=[provider, *others])


@pytest.mark.parametrize(("options", "message"), [({"threads": 0}, "threads"), ({"providers": []}, "provider")])
def test_wrong_options_are_refused(bundle: Bundle, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        open_head(bundle, **options)


def test_threads_change_nothing_but_speed(bundle: Bundle) -> None:
    states = random_states(3, 32)
    for found, expected in zip(
        open_head(bundle, threads=2).run(states), open_head(bundle, threads=1).run(states), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_damaged_graph_is_a_bundle_error(bundle: Bundle) -> None:
    graph = bundle.file(layout.HEAD_GRAPH)
    graph.write_bytes(graph.read_bytes()[:300])
    with pytest.raises(BundleError, match=r"cannot read head\.onnx"):
        open_head(bundle)


def test_missing_weights_are_a_package_error(bundle: Bundle) -> None:
    """The files may vanish after the bundle was opened."""
    bundle.file(layout.HEAD_DATA).unlink()
    with pytest.raises((BundleError, RuntimeUnavailableError), match=r"head\.onnx"):
        open_head(bundle)


def test_weights_that_are_cut_off_are_a_package_error(bundle: Bundle) -> None:
    data = bundle.file(layout.HEAD_DATA)
    data.write_bytes(data.read_bytes()[:4096])
    with pytest.raises((BundleError, RuntimeUnavailableError), match=r"head\.onnx"):
        open_head(bundle)


def test_a_graph_opens_without_a_bundle(bundle: Bundle) -> None:
    shape = HeadShape.of_bundle(bundle.manifest)
    alone = OnnxRuntimeHead(bundle.file(layout.HEAD_GRAPH), shape).run(random_states(2, 32))
    assert alone.candidate_ids.shape == (2, shape.num_candidates)


def test_results_stay_as_they_were(bundle: Bundle) -> None:
    runtime = open_head(bundle)
    first = runtime.run(random_states(2, 32))
    kept = [array.copy() for array in first]
    runtime.run(random_states(2, 32, seed=9))
    for array, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(array, copy)
