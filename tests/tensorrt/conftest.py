"""The builder with TensorRT for RTX. Nothing runs here: it builds ahead of time, without a GPU or a driver.

What a build shows: operators and types are accepted for a GPU, and how much scratch memory the plan asks for, which is
where a copy of the opened rows, or of dequantized centroids, would be.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flashhead_edge.export.graph_files import load_graph
from flashhead_edge.manifest import BatchProfile
from flashhead_edge.runtimes.tensorrt.build_log import BuildLog
from flashhead_edge.runtimes.tensorrt.engine_build import EngineRequest, import_package, write_engine


@dataclass(frozen=True)
class Built:
    """Size of the plan, or None; the greatest scratch memory, in bytes; what was said."""

    plan: int | None
    scratch: int
    said: str


def build_here(graph: Path, target: str, batch: BatchProfile) -> Built:
    """Build in this process what the command builds in a child: starting one takes longer than a build."""
    from polygraphy.exception import PolygraphyException

    width = load_graph(graph).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    capability = f"{target[2:-1]}.{target[-1]}"
    profile = (batch.least, batch.tuned, batch.most)
    engine, said = graph.with_suffix(".engine"), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # polygraphy always makes a timing cache
            write_engine(EngineRequest("tensorrt-rtx", str(graph), width, profile, capability), engine)
    except PolygraphyException:
        return Built(None, 0, said.getvalue())
    log = BuildLog.of(said.getvalue())
    assert log.scratch_bytes is not None, "the log does not say how much scratch memory is needed"
    return Built(engine.stat().st_size, log.scratch_bytes, log.text)


@pytest.fixture(scope="session")
def build() -> Callable[[Path, str, BatchProfile], Built]:
    pytest.importorskip("tensorrt_rtx", reason="make test-tensorrt installs it")
    import_package("tensorrt-rtx")
    return build_here
