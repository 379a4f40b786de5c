"""The session over the names of published versions and memory of the host; a GPU has not seen it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import EngineError
from flashhead_edge.runtimes.base import HeadShape
from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
from flashhead_edge.runtimes.tensorrt.engine_session import EngineSession
from tests.tensorrt_bindings.standin import NAMES
from tests.tiny_engines import WIDTH, engine_bundle, needs_polygraphy
from tests.tiny_heads import random_states

pytestmark = [pytest.mark.tensorrt, needs_polygraphy]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return engine_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


def run(bundle: Bundle, tmp_path: Path, version: str, rows: int, batch: tuple[int, int]) -> tuple[Any, str]:
    """Outputs of some states, and what was called."""
    states, outputs, calls = (tmp_path / name for name in ("states.npy", "outputs.npz", "calls"))
    np.save(states, random_states(rows, WIDTH))
    command = [sys.executable, "-m", "tests.tensorrt_bindings.run_head", bundle.path, version, states, outputs]
    done = subprocess.run(
        [*map(str, command), *map(str, batch)],
        cwd=ROOT,
        env={**os.environ, "STANDIN_CALLS": str(calls)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return np.load(outputs), calls.read_text()


def expected(bundle: Bundle, rows: int) -> Any:
    graph = bundle.file(bundle.graph("head_tensorrt").file)
    head = OnnxRuntimeHead(graph, HeadShape.of_bundle(bundle.manifest))
    return head.run(random_states(rows, WIDTH))._asdict()


def check(found: Any, wanted: Any) -> None:
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("version", list(NAMES))
def test_every_version_has_what_we_touch(bundle: Bundle, tmp_path: Path, version: str) -> None:
    """int64 outputs are int32 in 8.6."""
    found, calls = run(bundle, tmp_path, version, 3, (1, 4))
    check(found, expected(bundle, 3))
    assert "set_input_shape(name='hidden_states', shape=(3, 64))" in calls
    assert calls.count("execute_async_v3") == 1
    assert calls.count("set_tensor_address") == 5


@pytest.mark.parametrize(
    ("rows", "batch", "executed"),
    [(1, (1, 1), 1), (4, (1, 4), 1), (9, (1, 4), 3), (1, (2, 4), 1), (5, (4, 4), 2), (5, (1, 1), 5)],
)
def test_batches_go_in_parts_and_are_filled_up(
    bundle: Bundle, tmp_path: Path, rows: int, batch: tuple[int, int], executed: int
) -> None:
    found, calls = run(bundle, tmp_path, "10.3.0", rows, batch)
    check(found, expected(bundle, rows))
    assert calls.count("execute_async_v3") == executed


def test_weights_are_inputs(bundle: Bundle, tmp_path: Path) -> None:
    inputs = engine_bundle(tmp_path / "bundle", weight_inputs=True)
    assert len(inputs.graph("head_tensorrt").inputs) > 1
    found, calls = run(inputs, tmp_path, "10.3.0", 3, (1, 4))
    check(found, expected(bundle, 3))
    assert calls.count("set_tensor_address") == 4 + len(inputs.graph("head_tensorrt").inputs)


def test_another_version_is_refused(tmp_path: Path) -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    with pytest.raises(EngineError, match=rf"found: {rtx.__version__} is installed\n  expected: 1.0.0"):
        EngineSession(tmp_path / "engine", "tensorrt-rtx", "1.0.0")
