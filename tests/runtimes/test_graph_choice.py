from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flashhead_edge import Bundle, layout
from flashhead_edge.errors import BundleError, RuntimeUnavailableError
from flashhead_edge.manifest import GraphRecord
from flashhead_edge.runtimes.graph_choice import choose_graph
from tests.tiny_bundle import write_bundle

CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(write_bundle(tmp_path / "bundle"))


def with_graphs(bundle: Bundle, **files: str) -> Bundle:
    manifest = bundle.manifest
    graphs = {name: GraphRecord(file, [], []) for name, file in files.items()}
    known = dict.fromkeys(files.values(), manifest.files[layout.DECODE_GRAPH])
    changed = replace(manifest, graphs={**manifest.graphs, **graphs}, files={**manifest.files, **known})
    return replace(bundle, manifest=changed)


@pytest.mark.parametrize("providers", [CUDA, ("TensorrtExecutionProvider", *CUDA)])
def test_gpus_get_the_form_with_attention_in_half_precision(bundle, providers):
    with_cuda = with_graphs(bundle, decode_cuda=layout.CUDA_DECODE_GRAPH)
    assert choose_graph(with_cuda, "decode", providers).name == layout.CUDA_DECODE_GRAPH
    assert choose_graph(with_cuda, "decode").name == layout.DECODE_GRAPH
    assert choose_graph(with_cuda, "decode", ("CPUExecutionProvider", *CUDA)).name == layout.DECODE_GRAPH


def test_a_bundle_without_that_form_is_refused(bundle):
    with pytest.raises(RuntimeUnavailableError, match="cannot run") as caught:
        choose_graph(bundle, "decode", CUDA)
    assert "export" in str(caught.value)


def test_a_head_alone_has_one_form_for_all(bundle):
    head = with_graphs(bundle, head=layout.HEAD_GRAPH)
    assert choose_graph(head, "head", CUDA).name == layout.HEAD_GRAPH


def test_a_graph_that_is_not_there(bundle):
    with pytest.raises(BundleError, match="no dense_tensorrt graph"):
        choose_graph(bundle, "dense_tensorrt", CUDA)


def test_no_providers_at_all_are_left_to_the_session(bundle):
    assert choose_graph(bundle, "decode", ()).name == layout.DECODE_GRAPH
