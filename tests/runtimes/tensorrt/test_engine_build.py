"""The child process with the real polygraphy, over the names that published bindings of TensorRT have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flashhead_edge.errors import EngineError
from flashhead_edge.runtimes.tensorrt.builder import run_child
from flashhead_edge.runtimes.tensorrt.engine_build import EngineRequest
from tests.tensorrt_bindings.standin import NAMES, WIDTH, write_package
from tests.tiny_engines import needs_polygraphy

VERSIONS = list(NAMES)


def request_of(folder: Path, **changes: Any) -> EngineRequest:
    fields: dict[str, Any] = {
        "backend": "tensorrt",
        "graph": str(folder / "head.onnx"),
        "hidden_size": WIDTH,
        "batch": (1, 2, 8),
        "compute_capability": "8.7",
        "precisions": ("int8", "fp16"),
        "workspace_bytes": 1 << 28,
        "optimization_level": 5,
        "timing_cache": str(folder / "timing.cache"),
        "on_device": True,
    }
    return EngineRequest(**{**fields, **changes})


def test_requests_survive_json() -> None:
    request = request_of(Path("folder"))
    assert EngineRequest.from_json(request.to_json()) == request
    assert json.loads(request.to_json())["batch"] == [1, 2, 8]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds with the names of a version, and tells what was called."""

    def build(version: str, **changes: Any) -> list[str]:
        write_package(tmp_path, version)
        said = tmp_path / "calls"
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setenv("STANDIN_CALLS", str(said))
        log = run_child(request_of(tmp_path, **changes), tmp_path / "engine")
        assert (tmp_path / "engine").read_bytes() == f"an engine of {version}".encode()
        assert log.engine_layers == (7 if changes.get("on_device", True) else None)
        return said.read_text().splitlines()

    return build


@pytest.mark.tensorrt
@needs_polygraphy
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_what_we_touch(calls: Any, version: str) -> None:
    """A name or an argument that the version lacks would end the build."""
    made = calls(version)
    for line in (
        "IBuilderConfig.set_memory_pool_limit(pool=MemoryPoolType.WORKSPACE, pool_size=268435456)",
        "IBuilderConfig.builder_optimization_level = 5",
        "IOptimizationProfile.set_shape(input='hidden_states', min=(1, 64), opt=(2, 64), max=(8, 64))",
        "IBuilderConfig.clear_flag(flag=BuilderFlag.TF32)",
        "ITimingCache.serialize()",
        f"Runtime.deserialize_cuda_engine(serialized_engine=b'an engine of {version}')",
    ):
        assert made.count(line) == 1, line


@pytest.mark.tensorrt
@needs_polygraphy
@pytest.mark.parametrize("version", VERSIONS)
def test_types_are_the_graphs_or_allowed(calls: Any, version: str) -> None:
    """TensorRT 8.6 has no strongly typed networks; 11 has no flags for types."""
    made = calls(version)
    (network,) = (line for line in made if line.startswith("Builder.create_network"))
    creation = NAMES[version]["NetworkDefinitionCreationFlag"]
    flags = {name for name, bit in creation.items() if int(network.partition("=")[2].rstrip(")")) & 1 << bit}
    allowed = [line for line in made if line.startswith("IBuilderConfig.set_flag")]
    if version.startswith("8."):
        assert flags == {"EXPLICIT_BATCH"}
        assert allowed == [f"IBuilderConfig.set_flag(flag=BuilderFlag.{name})" for name in ("FP16", "INT8")]
    else:
        assert flags == {"STRONGLY_TYPED"}
        assert allowed == []


@pytest.mark.tensorrt
@needs_polygraphy
def test_old_versions_allow_only_what_the_graph_has(calls: Any) -> None:
    made = calls("8.6.1", precisions=("fp32",))
    assert not [line for line in made if line.startswith("IBuilderConfig.set_flag")]


@pytest.mark.tensorrt
@needs_polygraphy
def test_measured_times_are_used_again(calls: Any, tmp_path: Path) -> None:
    (tmp_path / "timing.cache").write_bytes(b"times")
    made = calls("10.3.0")
    assert made.count("IBuilderConfig.create_timing_cache(serialized_timing_cache=b'times')") == 2  # load, then merge
    assert (tmp_path / "timing.cache").read_bytes() == b"an engine of 10.3.0"


@pytest.mark.tensorrt
@needs_polygraphy
def test_elsewhere_the_engine_is_not_opened(calls: Any) -> None:
    made = calls("10.3.0", on_device=False, timing_cache=None, workspace_bytes=None)
    assert not [line for line in made if "Runtime" in line or "set_memory_pool_limit" in line or "serialize()" in line]


@pytest.mark.tensorrt
@needs_polygraphy
def test_a_version_without_a_name_ends_the_build(calls: Any, tmp_path: Path) -> None:
    """That the tests above can fail."""
    write_package(tmp_path, "10.3.0")
    with (tmp_path / "tensorrt.py").open("a") as file:
        file.write("del IBuilderConfig.builder_optimization_level\n")
    with pytest.raises(EngineError, match="builder_optimization_level"):
        run_child(request_of(tmp_path), tmp_path / "engine", child=child_over(tmp_path))


def child_over(folder: Path) -> tuple[str, ...]:
    """The child with what lies in a folder as ``tensorrt``."""
    code = (
        f"import os, runpy, sys; sys.path.insert(0, {str(folder)!r}); os.environ['STANDIN_CALLS'] = os.devnull;"
        "runpy.run_module('flashhead_edge.runtimes.tensorrt.engine_build', run_name='__main__', alter_sys=True)"
    )
    return (sys.executable, "-c", code)


ORPHAN = """
import subprocess, sys, time
code = "import sys, time, os; from flashhead_edge.runtimes.tensorrt.engine_build import die_with_parent;" \\
    "die_with_parent(int(sys.argv[1])); print(os.getpid(), flush=True); time.sleep(60)"
import os
subprocess.run([sys.executable, "-c", code, str(os.getpid())])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_child_ends_with_its_parent_however_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10
    while time.monotonic() < end and _runs(child):
        time.sleep(0.02)
    assert not _runs(child)


def test_a_child_whose_parent_has_ended_already_stops() -> None:
    code = "from flashhead_edge.runtimes.tensorrt.engine_build import die_with_parent; die_with_parent(1 << 30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has ended" in done.stderr


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
