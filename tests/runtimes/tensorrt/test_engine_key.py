from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flashhead_edge.runtimes.tensorrt.engine_key import EngineKey, hash_of_graph
from tests.tiny_engines import engine_bundle

KEY = EngineKey(
    graph="head_tensorrt",
    graph_sha256="1" * 64,
    weights_sha256="2" * 64,
    backend="tensorrt",
    tensorrt_version="10.3.0",
    compute_capability="8.7",
    gpu="NVIDIA Jetson Orin Nano",
    cuda="12",
    batch=(1, 1, 8),
    workspace_bytes=1 << 28,
    optimization_level=3,
)
OTHER: dict[str, Any] = {
    "graph": "dense_tensorrt",
    "graph_sha256": "3" * 64,
    "weights_sha256": "3" * 64,
    "backend": "tensorrt-rtx",
    "tensorrt_version": "10.7.0",
    "compute_capability": "8.6",
    "gpu": None,
    "cuda": "13",
    "batch": (1, 2, 8),
    "workspace_bytes": None,
    "optimization_level": 5,
    "build_version": 0,
}


def test_every_field_is_in_the_key() -> None:
    assert OTHER.keys() == {field.name for field in dataclasses.fields(EngineKey)}
    digests = {dataclasses.replace(KEY, **{name: value}).digest for name, value in OTHER.items()}
    assert len(digests | {KEY.digest}) == len(OTHER) + 1


def test_the_same_fields_are_the_same_key() -> None:
    assert dataclasses.replace(KEY).digest == KEY.digest
    assert set(KEY.digest) <= set("0123456789abcdef")


@pytest.mark.parametrize("name", sorted(OTHER))
def test_a_change_is_named(name: str) -> None:
    (change,) = dataclasses.replace(KEY, **{name: OTHER[name]}).changes_since(KEY)
    assert change.startswith(name.replace("_", " ").replace(" sha256", "") + " changed")


def test_a_change_says_from_what_to_what() -> None:
    assert dataclasses.replace(KEY, tensorrt_version="10.7.0", batch=(1, 1, 1)).changes_since(KEY) == [
        "tensorrt version changed (from 10.3.0 to 10.7.0)",
        "batch changed (from 1,1,8 to 1,1,1)",
    ]
    assert dataclasses.replace(KEY, graph_sha256="9" * 64).changes_since(KEY) == ["graph changed"]


def test_places_are_names_of_files() -> None:
    assert KEY.place == "head-tensorrt-sm87-nvidia-jetson-orin-nano"
    ahead = dataclasses.replace(
        KEY, backend="tensorrt-rtx", gpu=None, compute_capability="12.0", graph="dense_tensorrt"
    )
    assert ahead.place == "dense-tensorrt-rtx-sm120"


def test_weights_are_the_files_that_the_graph_names(tmp_path: Path) -> None:
    bundle = engine_bundle(tmp_path / "bundle")
    graph, weights, size = hash_of_graph(bundle, "head_tensorrt")
    files = bundle.manifest.files
    assert graph == files["head.tensorrt.onnx"].sha256
    assert size == files["head.onnx.data"].bytes + files["head.tensorrt.onnx.data"].bytes
    _, others, less = hash_of_graph(bundle, "head")
    assert less == files["head.onnx.data"].bytes
    assert others != weights


def test_other_weights_are_another_key(tmp_path: Path) -> None:
    one, two = (hash_of_graph(engine_bundle(tmp_path / str(seed), seed=seed), "head_tensorrt") for seed in (0, 1))
    assert one[0] == two[0]  # the graph holds no weights
    assert one[1] != two[1]
