"""Builds in a real child process; those with TensorRT for RTX need no GPU."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import EngineError
from flashhead_edge.platforms.catalog import find_platform
from flashhead_edge.platforms.detection import DeviceFacts
from flashhead_edge.platforms.host import host_facts
from flashhead_edge.runtimes.tensorrt.builder import build_engine, run_child
from flashhead_edge.runtimes.tensorrt.engine_build import EngineRequest
from flashhead_edge.runtimes.tensorrt.engine_cache import EngineCache
from flashhead_edge.runtimes.tensorrt.planning import BuildOptions, BuildPlan, plan_build
from flashhead_edge.runtimes.tensorrt.probe import Package
from tests.tensorrt_shapes import SHAPES, two_stage
from tests.tiny_engines import engine_bundle

PACKAGE = Package("tensorrt-rtx", "1.7.1.116", ("8.6", "8.9"))
#: Writes an engine without TensorRT, and a log.
PRETENDED = (
    sys.executable,
    "-c",
    "import pathlib, sys; pathlib.Path(sys.argv[2]).write_bytes(b'kernels'); print('Max Scratch Memory: 5 bytes')",
)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildPlan:
    return plan_of(engine_bundle(tmp_path / "bundle"), monkeypatch)


def plan_of(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, **options: Any) -> BuildPlan:
    """A plan as with TensorRT for RTX installed, which the builds that are pretended do not need."""
    monkeypatch.setattr("flashhead_edge.runtimes.tensorrt.package_choice.is_installed", lambda backend: True)
    platform, facts = find_platform("geforce-rtx-4090"), DeviceFacts(host_facts())
    return plan_build(bundle, platform, facts, BuildOptions(**options), ask=lambda backend: PACKAGE)


def dying(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.mark.tensorrt
def test_an_engine_is_built_ahead_of_time(plan: BuildPlan) -> None:
    pytest.importorskip("tensorrt_rtx")
    built = build_engine(plan)
    record = built.record
    assert built.built_because == "there is no engine yet"
    assert record.bytes == built.path.stat().st_size > 1000 * 64 * 2
    assert record.scratch_bytes is not None
    assert 0 < record.scratch_bytes < 1 << 20
    assert record.graph_nodes is not None
    assert record.engine_layers is not None
    assert 0 < record.engine_layers < record.graph_nodes / 3  # both stages are a kernel or two each
    again = build_engine(plan)
    assert (again.built_because, again.record) == (None, record)


@pytest.mark.tensorrt
def test_a_type_that_the_gpu_lacks_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    bundle = engine_bundle(tmp_path / "bundle", centroid_precision="fp8")
    request = EngineRequest("tensorrt-rtx", str(bundle.file("head.tensorrt.onnx")), 64, (1, 1, 1), "8.6")
    with pytest.raises(EngineError, match="fp8_e4m3"):
        run_child(request, tmp_path / "engine")
    assert not (tmp_path / "engine").exists()


@pytest.mark.tensorrt
def test_a_build_without_memory_says_so(tmp_path: Path) -> None:
    """The real builder in a process that may take only 1.5 GB of addresses, for weights of 0.5 GB."""
    pytest.importorskip("tensorrt_rtx")
    shape = SHAPES["llama-3.2-1b"]
    request = EngineRequest("tensorrt-rtx", str(two_stage(tmp_path, shape, _options())), shape.width, (1, 1, 1), "8.6")
    inner = f"exec {sys.executable} -m flashhead_edge.runtimes.tensorrt.engine_build"
    with pytest.raises(EngineError, match="memory ran out") as caught:
        run_child(request, tmp_path / "engine", child=("sh", "-c", f'ulimit -v 1500000; {inner} "$@"', "sh"))
    assert "--workspace" in str(caught.value)


def _options() -> Any:
    from flashhead_edge.export.tensorrt_head import TensorRtOptions

    return TensorRtOptions()


def test_an_engine_is_kept_with_its_record(plan: BuildPlan) -> None:
    plan = dataclasses.replace(plan, built_on={"l4t": "36.4.3"})
    said: list[str] = []
    built = build_engine(plan, child=PRETENDED, say=said.append)
    assert said == ["building, because there is no engine yet"]
    assert built.path.parent == plan.folder
    record = json.loads(built.path.with_suffix(".json").read_text())
    assert (record["digest"], record["platform"]) == (plan.key.digest, "geforce-rtx-4090")
    assert (record["bytes"], record["scratch_bytes"], record["built_on"]) == (7, 5, {"l4t": "36.4.3"})
    assert EngineCache(plan.folder).find(plan.key) == built.record


def test_engines_do_not_disturb_the_bundle(plan: BuildPlan, tmp_path: Path) -> None:
    build_engine(plan, child=PRETENDED)
    bundle = Bundle.open(tmp_path / "bundle")
    assert plan.folder == bundle.path / "engines"
    assert not [name for name in bundle.manifest.files if "engine" in name]


def test_an_engine_that_is_there_is_not_built_again(plan: BuildPlan) -> None:
    built = build_engine(plan, child=PRETENDED)
    found = build_engine(plan, child=dying("raise SystemExit('built again')"))
    assert (found.path, found.record, found.built_because) == (built.path, built.record, None)
    with pytest.raises(EngineError, match="built again"):
        build_engine(plan, rebuild=True, child=dying("raise SystemExit('built again')"))
    assert build_engine(plan, rebuild=True, child=PRETENDED).built_because == "it was asked for"


def test_a_new_export_makes_the_engine_stale(plan: BuildPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_engine(plan, child=PRETENDED)
    (other := tmp_path / "other").mkdir()
    newer = plan_of(engine_bundle(other / "bundle", seed=1), monkeypatch, folder=plan.folder)
    built = build_engine(newer, child=PRETENDED)
    assert built.built_because == "the engine that is there is stale: weights changed"
    assert len(list(plan.folder.glob("*.engine"))) == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "memory ran out"),
        ("print('[E] Requested amount of GPU memory: out of memory'); raise SystemExit(1)", "memory ran out"),
        ("raise OSError(28, 'No space left on device')", "make room on the disk"),
        ("print('[E] could not find any implementation for node'); raise SystemExit(1)", "raise --workspace"),
        ("raise SystemExit('something else')", "something else"),
        ("raise SystemExit(3)", "exit status 3"),
    ],
)
def test_a_failed_build_says_why_and_leaves_nothing(plan: BuildPlan, code: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        build_engine(plan, child=dying(code))
    assert [path.name for path in plan.folder.iterdir()] == [f".{plan.key.place}.lock"]


def test_the_log_of_a_failed_build_is_kept(plan: BuildPlan, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="--log FILE"):
        build_engine(plan, child=dying("print('[E] why'); raise SystemExit(1)"), log_file=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "[E] why\n"


def test_too_little_memory_stops_it_before(plan: BuildPlan) -> None:
    large = dataclasses.replace(plan, memory_estimate=1 << 60)
    with pytest.raises(EngineError, match="too little free memory"):
        build_engine(large, child=dying("raise SystemExit('started')"))
    assert build_engine(large, child=PRETENDED, check_free_memory=False).built_because


def test_too_little_room_stops_it_before(plan: BuildPlan) -> None:
    with pytest.raises(EngineError, match="too full"):
        build_engine(dataclasses.replace(plan, weights_bytes=1 << 60), child=dying("raise SystemExit('started')"))


TWO = """
import sys
from pathlib import Path
import pytest
from flashhead_edge.bundle import Bundle
from flashhead_edge.runtimes.tensorrt.builder import build_engine
from tests.runtimes.tensorrt.test_builder import SLOW, plan_of
with pytest.MonkeyPatch.context() as patch:
    built = build_engine(plan_of(Bundle.open(sys.argv[1]), patch), child=SLOW, say=print)
print(built.path.read_bytes(), built.built_because)
"""
COUNTED = """
import pathlib, sys, time
time.sleep(0.5)
engine = pathlib.Path(sys.argv[2])
engine.write_bytes(b"kernels")
with (engine.parents[2] / "builds").open("a") as file:
    file.write("x")
"""
#: Notes that it was started, and takes its time.
SLOW = (sys.executable, "-c", COUNTED)


def test_two_processes_build_a_key_once(tmp_path: Path) -> None:
    bundle = engine_bundle(tmp_path / "bundle")
    command = [sys.executable, "-c", TWO, str(bundle.path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0].splitlines()[-1] for process in both)
    assert said == ["b'kernels' None", "b'kernels' there is no engine yet"]
    assert (bundle.path / "builds").read_text() == "x"
