"""TensorRT for RTX builds the head ahead of time, without a GPU: for every target, fused, and refused where it must be.

Nothing runs here. What a build shows: the operators and types are accepted, and how much scratch memory the plan asks
for, which is where a copy of the opened rows, or of dequantized centroids, would be.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashhead_edge.export.graph_files import save_graph
from flashhead_edge.export.head_graph import HeadTables
from flashhead_edge.export.tensor_ref import DataFile, TensorRef
from flashhead_edge.export.tensorrt_graph import MOST_PROBES, PRECISIONS, Rows, tensorrt_graph, write_tensorrt_head
from flashhead_edge.index.head_index import HeadIndex
from tests.tiny_heads import random_head, random_index, write_tables

pytestmark = pytest.mark.tensorrt

TARGETS = ("SM80", "SM86", "SM89", "SM120")
#: V, H, cluster size and probes, at a tenth of the vocabulary: fusing depends on the width and on what is opened.
SHAPES = {
    "gemma3-270m": (26214, 640, 32, 365),
    "smollm2-135m": (4915, 576, 32, 111),
    "llama-3.2-1b": (12826, 2048, 32, 160),
    "qwen3-1.7b": (15194, 2048, 32, 190),
}
MOST_SCRATCH = 1 << 20


@pytest.fixture(scope="session")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="make test-tensorrt installs it")


@pytest.fixture(scope="session")
def logger(rtx: Any) -> Any:
    """Keeps every message; a process may have one logger only."""

    class Logger(rtx.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            rtx.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            del severity
            self.lines.append(message)

    return Logger()


def build(rtx: Any, logger: Any, graph: Path, target: str, *, batch: int = 1) -> tuple[int | None, str]:
    """Size of the plan, or None, and what was said; ``batch`` is the profile's greatest."""
    logger.lines.clear()
    builder = rtx.Builder(logger)
    network = builder.create_network(0)
    parser = rtx.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        return None, "\n".join(str(parser.get_error(i)) for i in range(parser.num_errors))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(rtx.ComputeCapability, target), 0)
    profile = builder.create_optimization_profile()
    width = network.get_input(0).shape[1]
    profile.set_shape("hidden_states", (1, width), (1, width), (batch, width))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return None if plan is None else plan.nbytes, "\n".join(logger.lines)


def scratch_bytes(log: str) -> int:
    """The greatest scratch memory that the log speaks of."""
    found = [int(number) for number in re.findall(r"Max Scratch Memory: (\d+) bytes", log)]
    assert found, "the log does not say how much scratch memory is needed"
    return max(found)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Path]:
    paths = {}
    for name, (vocab, width, size, probes) in SHAPES.items():
        folder = tmp_path_factory.mktemp(name)
        head = random_head(vocab, width)
        index = random_index(head, size, always=tuple(range(40)))
        tables = write_tables(folder, head, index, probes, rows="float16")
        for centroids in PRECISIONS:
            for rows in PRECISIONS:
                paths[name, centroids, rows] = write_tensorrt_head(
                    folder,
                    tables,
                    index,
                    centroid_precision=centroids,
                    cluster_precision=rows,
                    name=f"{centroids}-{rows}.onnx",
                )
    return paths


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rows", PRECISIONS)
@pytest.mark.parametrize("centroids", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_variant_builds_and_copies_no_rows(
    rtx: Any, logger: Any, graphs: Any, shape: str, centroids: str, rows: str, target: str
) -> None:
    size, said = build(rtx, logger, graphs[shape, centroids, rows], target)
    assert size, said[-2000:]
    assert scratch_bytes(said) <= MOST_SCRATCH


@pytest.mark.parametrize("rows", PRECISIONS)
def test_a_dynamic_batch_builds(rtx: Any, logger: Any, graphs: Any, rows: str) -> None:
    size, said = build(rtx, logger, graphs["gemma3-270m", "int8", rows], "SM86", batch=8)
    assert size, said[-2000:]
    assert scratch_bytes(said) <= 8 * MOST_SCRATCH


def test_the_limit_of_probes_is_tensorrts(rtx: Any, logger: Any, tmp_path: Path) -> None:
    """One more than we allow is what it refuses."""
    head = random_head(8000, 64)
    index = random_index(head, 2)
    tables: HeadTables = write_tables(tmp_path, head, index, MOST_PROBES, rows="float16")
    model = tensorrt_graph(tables, Rows(half_centroids(tmp_path, index), None), Rows(tables.rows, None))
    save_graph(model, tmp_path / "most.onnx")
    assert build(rtx, logger, tmp_path / "most.onnx", "SM86")[0]
    for tensor in model.graph.initializer:
        if tensor.name == "/head/select/k":
            tensor.raw_data = np.array([MOST_PROBES + 1], np.int64).tobytes()
        if tensor.name in ("/head/logits/shape", "/head/ids/shape"):
            tensor.raw_data = np.array([0, (MOST_PROBES + 1) * 2], np.int64).tobytes()
    save_graph(model, tmp_path / "more.onnx")
    size, said = build(rtx, logger, tmp_path / "more.onnx", "SM86")
    assert size is None
    assert str(MOST_PROBES) in said


def half_centroids(folder: Path, index: HeadIndex) -> TensorRef:
    """The centroids in float16, in a data file of their own."""
    with DataFile(folder / "centroids.data") as data:
        return data.append("centroids", index.centroids.astype(np.float16))
