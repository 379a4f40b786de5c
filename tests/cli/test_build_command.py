from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flashhead_edge.bundle import Bundle
from flashhead_edge.cli import main
from flashhead_edge.platforms.overrides import FACTS, PREFIX
from tests.tiny_bundle import write_bundle
from tests.tiny_engines import engine_bundle

JSON_KEYS = {"engine", "key", "seconds", "backend", "compute_capability", "layers_fused", "scratch_bytes"}
PLATFORM = ("--platform", "geforce-rtx-4090")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is detected is given, so that these tests say the same on any machine."""
    for name in FACTS:
        monkeypatch.delenv(PREFIX + name, raising=False)
    for name in ("JETSON_MODEL", "GPU_NAME", "DRIVER_VERSION"):
        monkeypatch.setenv(PREFIX + name, "none")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return engine_bundle(tmp_path / "bundle", dense=True).path


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="make test-tensorrt installs it")


def run(bundle: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["build", str(bundle), *arguments])


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_an_engine_is_built_then_found(bundle: Path) -> None:
    first = run(bundle, *PLATFORM, "--json")
    assert first.exit_code == 0, first.output
    assert first.stderr == "building, because there is no engine yet\n"
    report = json.loads(first.stdout)
    assert report.keys() >= JSON_KEYS
    assert (report["backend"], report["compute_capability"], report["built"]) == ("tensorrt-rtx", "8.9", True)
    assert 0 < report["layers_fused"] == report["graph_nodes"] - report["engine_layers"]
    engine = Path(report["engine"])
    assert engine.parent == bundle / "engines"
    assert engine.stat().st_size == report["bytes"]
    second = json.loads(run(bundle, *PLATFORM, "--json").stdout)
    assert second == {**report, "built": False, "because": "the engine is there"}
    Bundle.open(bundle)  # engines are no part of what is hashed
    assert CliRunner().invoke(main, ["inspect", str(bundle)]).exit_code == 0


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_a_change_is_told_in_a_line(bundle: Path, tmp_path: Path) -> None:
    cache = ("--cache-dir", str(tmp_path / "cache"))
    assert run(bundle, *PLATFORM, *cache).exit_code == 0
    changed = run(bundle, *PLATFORM, *cache, "--workspace", "64MiB", "--batch", "1,2,4")
    assert changed.stderr == (
        "building, because the engine that is there is stale: batch changed (from 1,1,4 to 1,2,4); "
        "workspace bytes changed (from 1073741824 to 67108864)\n"
    )
    assert not (bundle / "engines").exists()
    text = run(bundle, *PLATFORM, *cache, "--workspace", "64MiB", "--batch", "1,2,4").stdout
    assert "Found, built before:" in text
    assert "nodes of the graph became" in text
    assert "built" in run(bundle, *PLATFORM, *cache, "--graph", "dense").stdout.lower()
    assert len(list((tmp_path / "cache").glob("*.engine"))) == 2


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_a_dry_run_writes_nothing(bundle: Path) -> None:
    text = run(bundle, *PLATFORM, "--dry-run")
    assert text.exit_code == 0
    for part in ("tensorrt-rtx", "1,1,4", "memory estimate", "free memory", "there is no engine yet"):
        assert part in text.stdout
    report = json.loads(run(bundle, *PLATFORM, "--dry-run", "--json").stdout)
    assert report["would_build"] is True
    assert report["memory_estimate_bytes"] > report["weights_bytes"] > 0
    assert not (bundle / "engines").exists()
    run(bundle, *PLATFORM)
    report = json.loads(run(bundle, *PLATFORM, "--dry-run", "--json").stdout)
    assert (report["would_build"], report["because"]) == (False, "the engine is there")
    assert Path(report["engine"]).is_file()
    assert json.loads(run(bundle, *PLATFORM, "--dry-run", "--json", "--rebuild").stdout)["would_build"] is True


@pytest.mark.tensorrt
@pytest.mark.usefixtures("rtx")
def test_a_gpu_that_tensorrt_for_rtx_does_not_know(bundle: Path) -> None:
    result = run(bundle, "--platform", "nvidia-h100-80gb", "--backend", "tensorrt-rtx")
    assert result.exit_code == 1
    assert "found: compute capability 9.0" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ((), 2, ("No NVIDIA GPU", "--platform")),
        (("--platform", "rtx-4090"), 2, ("did you mean 'geforce-rtx-4090'",)),
        (("--platform", "raspberry-pi-5"), 2, ("has no NVIDIA GPU",)),
        (("--platform", "jetson-orin-nano-8gb"), 1, ("builds only on the device itself", "copy the bundle")),
        ((*PLATFORM, "--batch", "1,2"), 2, ("--batch", "three numbers, as in 1,1,8")),
        ((*PLATFORM, "--workspace", "much"), 2, ("--workspace", "256MiB")),
        ((*PLATFORM, "--workspace", "0"), 2, ("--workspace",)),
        ((*PLATFORM, "--optimization-level", "6"), 2, ("--optimization-level",)),
        ((*PLATFORM, "--backend", "tensorflow"), 2, ("--backend",)),
        ((*PLATFORM, "--graph", "body"), 2, ("--graph",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_wrong_use(bundle: Path, arguments: tuple[str, ...], code: int, parts: tuple[str, ...]) -> None:
    result = run(bundle, *arguments, "--json")
    assert result.exit_code == code
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr


def test_a_platform_of_the_users(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        """[platforms.my-board]
title = "My board"
family = "own"
compute_capability = "7.0"
sources = { compute_capability = "its data sheet" }
"""
    )
    result = run(bundle, "--platform", "my-board", "--platform-file", str(file))
    assert result.exit_code == 2
    assert "The GPU of my-board is too old" in result.stderr


def test_types_that_the_gpu_lacks_are_refused_before(tmp_path: Path) -> None:
    bundle = engine_bundle(tmp_path / "bundle", centroid_precision="fp8").path
    result = run(bundle, "--platform", "geforce-rtx-3090")
    assert result.exit_code == 2
    assert "no fp8" in result.stderr
    assert "--centroid-precision" in result.stderr


def test_a_bundle_without_the_graph(tmp_path: Path) -> None:
    result = run(write_bundle(tmp_path / "bundle"), *PLATFORM)
    assert result.exit_code == 2
    assert "export the model again with --target tensorrt (or all)" in result.stderr


def test_a_changed_bundle_is_refused(bundle: Path) -> None:
    data = bundle / "head.onnx.data"
    data.write_bytes(data.read_bytes()[::-1])
    result = run(bundle, *PLATFORM)
    assert result.exit_code == 1
    assert "head.onnx.data has changed" in result.stderr


@pytest.mark.parametrize(
    ("text", "size"),
    [("268435456", 1 << 28), ("256MiB", 1 << 28), ("0.5 GiB", 1 << 29), ("1gb", 10**9), ("7 B", 7)],
)
def test_sizes(text: str, size: int) -> None:
    from flashhead_edge.cli.build import _size

    assert _size(text) == size
