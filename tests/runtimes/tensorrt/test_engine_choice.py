from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flashhead_edge.bundle import Bundle, hash_file
from flashhead_edge.errors import EngineError
from flashhead_edge.runtimes.tensorrt.engine_cache import EngineCache, EngineRecord
from flashhead_edge.runtimes.tensorrt.engine_choice import choose_engine
from flashhead_edge.runtimes.tensorrt.engine_key import EngineKey, hash_of_graph
from tests.runtimes.tensorrt.test_engine_key import KEY
from tests.runtimes.tensorrt.test_target import ORIN, RTX, facts_of
from tests.tiny_engines import engine_bundle

GPU = {**ORIN, "JETSON_COMPATIBLE": "p3768-0000+p3767-0005,tegra234", "GPU_COMPUTE_CAPABILITY": "8.7"}


@pytest.fixture(autouse=True)
def both_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashhead_edge.runtimes.tensorrt.engine_choice.is_installed", lambda backend: True)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return engine_bundle(tmp_path / "bundle")


def put(bundle: Bundle, folder: Path | None = None, **changes: Any) -> EngineKey:
    """Put an engine of a bundle into its cache, for the board of ORIN unless told."""
    graph, weights, _ = hash_of_graph(bundle, "head_tensorrt")
    fields = {"graph_sha256": graph, "weights_sha256": weights, "gpu": ORIN["JETSON_MODEL"], **changes}
    key = dataclasses.replace(KEY, **fields)
    cache = EngineCache(folder or bundle.path / "engines")
    with cache.building(key, 0, lambda: None) as scratch:
        (scratch / "engine").write_bytes(b"kernels")
        record = EngineRecord(key, "x", 7, hash_file(scratch / "engine").sha256, 1.0, None, None, None)
        cache.add(scratch / "engine", record)
    return key


def choose(bundle: Bundle, given: dict[str, str] = GPU, folder: Path | None = None) -> EngineKey:
    return choose_engine(bundle, "head_tensorrt", facts_of(given), folder)[1].key


def test_the_engine_of_this_gpu_is_chosen(bundle: Bundle, tmp_path: Path) -> None:
    put(bundle, compute_capability="8.6")
    put(bundle, gpu="NVIDIA Jetson AGX Orin")
    right = put(bundle)
    assert choose(bundle) == right
    other = put(bundle, tmp_path / "elsewhere", optimization_level=5)
    assert choose(bundle, folder=tmp_path / "elsewhere") == other


def test_engines_that_were_built_ahead_of_time_have_no_name_of_a_gpu(bundle: Bundle) -> None:
    key = put(bundle, backend="tensorrt-rtx", gpu=None, compute_capability="8.9")
    assert choose(bundle, {**RTX, "GPU_COMPUTE_CAPABILITY": "8.9"}) == key
    assert choose(bundle, RTX) == key  # where the driver does not say what it is, TensorRT will


def test_without_an_engine_it_says_how_to_build_one(bundle: Bundle) -> None:
    put(bundle, graph="dense_tensorrt")
    with pytest.raises(EngineError, match=r"no engine of this graph(.|\n)*flashhead-edge build"):
        choose(bundle)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights_sha256": "0" * 64}, "it was built of another export"),
        ({"graph_sha256": "0" * 64}, "it was built of another export"),
        ({"compute_capability": "8.9"}, "it is for compute capability 8.9, and this GPU has 8.7"),
        ({"gpu": "NVIDIA Jetson AGX Orin"}, "it is for NVIDIA Jetson AGX Orin, and this is NVIDIA Jetson Orin Nano"),
    ],
)
def test_each_refused_engine_has_a_reason(bundle: Bundle, changes: dict[str, str], reason: str) -> None:
    put(bundle, **changes)
    with pytest.raises(EngineError) as caught:
        choose(bundle)
    assert reason in str(caught.value)


def test_a_package_that_is_gone_is_a_reason(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    put(bundle)
    monkeypatch.setattr("flashhead_edge.runtimes.tensorrt.engine_choice.is_installed", lambda backend: False)
    with pytest.raises(EngineError, match="tensorrt is not installed"):
        choose(bundle)


def test_changed_bytes_are_refused(bundle: Bundle) -> None:
    engine = EngineCache(bundle.path / "engines").path(put(bundle))
    engine.write_bytes(b"kernelt")
    with pytest.raises(EngineError, match=r"its bytes have changed(.|\n)*--rebuild"):
        choose(bundle)
