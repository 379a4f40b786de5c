"""What can be seen of the runtime without a GPU: refusals, and how batches are cut; see test_engine_session too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashhead_edge.errors import BundleError, OptionError, RuntimeUnavailableError
from flashhead_edge.platforms.overrides import FACTS, PREFIX
from flashhead_edge.runtimes import open_head
from flashhead_edge.runtimes.base import HeadShape
from flashhead_edge.runtimes.tensorrt.runtime import TensorRtHead
from tests.runtimes.tensorrt.test_target import NOTHING
from tests.tiny_engines import engine_bundle
from tests.tiny_heads import head_bundle, random_head, random_index

SHAPE = HeadShape(vocab_size=100, hidden_size=4, num_clusters=3, cluster_size=2, num_probes=2, num_candidates=5)


class CountingSession:
    """Gives every row back as its outputs, and refuses batches that are not of its profile."""

    def __init__(self, batch: tuple[int, int]) -> None:
        self.batch = batch
        self.seen: list[int] = []

    def run(self, states: np.ndarray) -> dict[str, Any]:
        assert self.batch[0] <= len(states) <= self.batch[1]
        self.seen.append(len(states))
        first = states[:, :1]
        return {
            "token_ids": first[:, 0].astype(np.int32),
            "candidate_ids": np.repeat(first, 5, axis=1).astype(np.int32),
            "candidate_logits": np.repeat(first, 5, axis=1),
            "cluster_scores": np.repeat(first, 3, axis=1),
        }


@given(rows=st.integers(1, 40), least=st.integers(1, 8), more=st.integers(0, 8))
def test_any_number_of_states_fits_any_profile(rows: int, least: int, more: int) -> None:
    session = CountingSession((least, least + more))
    states = np.repeat(np.arange(rows, dtype=np.float32)[:, None], 4, axis=1)
    output = TensorRtHead(session, SHAPE, "tensorrt 10.3.0").run(states)
    assert output.token_ids.tolist() == list(range(rows))
    assert output.candidate_logits.shape == (rows, 5)
    assert output.cluster_scores.shape == (rows, 3)
    assert [array.dtype.name for array in output] == ["int64", "int64", "float32", "float32"]
    assert len(session.seen) == -(-rows // (least + more))


def test_states_of_another_width_are_refused() -> None:
    head = TensorRtHead(CountingSession((1, 4)), SHAPE, "tensorrt 10.3.0")
    with pytest.raises(OptionError, match=r"expected: float32 of shape \[B, 4\]"):
        head.run(np.zeros((1, 5), np.float32))
    assert (head.name, head.providers) == ("tensorrt", ("tensorrt 10.3.0",))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FACTS:
        monkeypatch.delenv(PREFIX + name, raising=False)
    for name, value in NOTHING.items():
        monkeypatch.setenv(PREFIX + name, value)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"there is none here(.|\n)*flashhead-edge runtimes"):
        open_head(engine_bundle(tmp_path / "bundle"), "tensorrt")


def test_a_bundle_without_the_graph_is_refused(tmp_path: Path) -> None:
    head = random_head(64, 32)
    with pytest.raises(BundleError, match=r"no head in the form for TensorRT(.|\n)*--target tensorrt"):
        open_head(head_bundle(tmp_path / "bundle", head, random_index(head, 8), 2), "tensorrt")


REAL = """
import sys
from flashhead_edge import Bundle
from flashhead_edge.errors import EngineError
from flashhead_edge.runtimes import open_head
try:
    open_head(Bundle.open(sys.argv[1]), "tensorrt")
except EngineError as error:
    print(error.message)
"""


@pytest.mark.tensorrt
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a driver that could be asked")
@pytest.mark.usefixtures("no_gpu")
def test_tensorrt_checks_the_engine_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real engine for a GPU that is only said to be here: TensorRT for RTX asks the driver and refuses."""
    pytest.importorskip("tensorrt_rtx")
    bundle = engine_bundle(tmp_path / "bundle").path
    command = [sys.executable, "-m", "flashhead_edge", "build", str(bundle), "--platform", "geforce-rtx-4090"]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv(PREFIX + "GPU_NAME", "NVIDIA GeForce RTX 4090")
    done = subprocess.run([sys.executable, "-c", REAL, str(bundle)], capture_output=True, text=True, check=True)
    assert done.stdout == "TensorRT says that this engine cannot run here.\n"
