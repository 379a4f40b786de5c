"""ONNX Runtime's profile, read from files that real sessions write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flashhead_edge import layout
from flashhead_edge.errors import ProfileError
from flashhead_edge.profiling import record
from flashhead_edge.profiling.onnxruntime_trace import NATIVE_HEAD, read_runs, stage_of
from flashhead_edge.runtimes.session import open_session
from tests.tiny_heads import head_bundle, random_head, random_index, random_states


@pytest.mark.parametrize(
    ("node", "stage"),
    [
        ("/head/centroids/MatMul_Q4", record.CENTROIDS),
        ("/head/projection/MatMul", record.CENTROIDS),
        ("/head/select/TopK", record.TOP_K),
        ("/head/clusters.1/Gather", record.GATHER_DOT),
        ("/head/logits/MatMul/MatMulAddFusion", record.GATHER_DOT),
        ("/head/greedy/ReduceMin", record.GATHER_DOT),
        ("/head/TwoStageHead", NATIVE_HEAD),
        ("/model/layers.0/attn/GroupQueryAttention", record.BODY),
        ("/embedding/Gather", record.BODY),
    ],
)
def test_stages_by_the_names_of_nodes(node: str, stage: str) -> None:
    assert stage_of(node) == stage


def test_a_dense_head_is_one_stage() -> None:
    assert stage_of("/head/logits/MatMul", head="dense") == record.DENSE_HEAD
    assert stage_of("/model/norm", head="dense") == record.BODY


def test_a_session_tells_its_runs(tmp_path: Path) -> None:
    head, folder = random_head(200, 32), tmp_path / "head"
    head_bundle(folder, head, random_index(head, 4), 5)
    session = open_session(folder / layout.HEAD_GRAPH, threads=1, profile=tmp_path / "seen")
    for _ in range(3):
        session.run(None, {"hidden_states": random_states(1, 32)})
    path = Path(session.end_profiling())
    assert path.parent == tmp_path
    runs = read_runs(path)
    assert len(runs) == 3
    assert all(set(run) == {record.CENTROIDS, record.TOP_K, record.GATHER_DOT} for run in runs)
    whole = [event["dur"] / 1e3 for event in json.loads(path.read_text()) if event["name"] == "model_run"]
    assert all(0 <= sum(run.values()) <= ms for run, ms in zip(runs, whole, strict=True))
    assert sum(sum(run.values()) for run in runs) > 0


@pytest.mark.parametrize("text", ["", "{}", "[3]", '[{"cat": "Node", "name": "/head/x_kernel_time"}]', "null"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    if text == "{}":  # an object has no events, so no runs
        assert read_runs(path) == []
        return
    with pytest.raises(ProfileError, match="not a profile of ONNX Runtime"):
        read_runs(path)
