"""TensorRT's layer profiles: files of the form that trtexec's sampleReporting.cpp writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flashhead_edge.errors import ProfileError
from flashhead_edge.profiling import record
from flashhead_edge.profiling.tensorrt_layers import read_layers


def layer(name: str, average: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "timeMs": 100 * average, "averageMs": average, **more, "percentage": 1.0}


def write(path: Path, *layers: dict[str, Any], count: int = 100) -> Path:
    path.write_text(json.dumps([{"count": count}, *layers]))
    return path


def test_layers_go_to_stages(tmp_path: Path) -> None:
    path = write(
        tmp_path / "layers.json",
        layer("Reformatting CopyNode for Input Tensor 0 to /head/centroids/Mul", 0.001),
        layer("/head/centroids/Mul + /head/centroids/ReduceSum", 0.02, medianMs=0.018),
        layer("/head/select/TopK", 0.03),
        layer("{ForeignNode[/head/clusters/Gather.../head/logits/ReduceSum]}", 0.05),
        layer("(Unnamed Layer* 17) [Shuffle]", 0.004),
    )
    found = read_layers(path)
    assert found.iterations == 100
    assert found.spanning == ()
    assert found.stages == pytest.approx(
        {record.CENTROIDS: 0.019, record.TOP_K: 0.03, record.GATHER_DOT: 0.05, record.HOST: 0.004}
    )
    assert list(found.stages) == [record.CENTROIDS, record.TOP_K, record.GATHER_DOT, record.HOST]


def test_a_layer_over_several_stages_is_named(tmp_path: Path) -> None:
    name = "{ForeignNode[/head/centroids/MatMul.../head/greedy/ArgMax]}"
    found = read_layers(write(tmp_path / "layers.json", layer(name, 0.1)))
    assert found.spanning == (name,)
    assert found.stages == {record.CENTROIDS: 0.1}


def test_a_dense_head(tmp_path: Path) -> None:
    path = write(tmp_path / "layers.json", layer("/head/logits/MatMul", 0.4), layer("/head/greedy/ArgMax", 0.1))
    assert read_layers(path, head="dense").stages == pytest.approx({record.DENSE_HEAD: 0.5})


def test_an_engine_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="No layer"):
        read_layers(write(tmp_path / "layers.json", layer("conv1 + relu1", 0.4)))


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"count": 3}, {"name": "x"}]', "[3]"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match="exportProfile"):
        read_layers(path)
