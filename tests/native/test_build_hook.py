"""The library is compiled with one call, and its absence never stops an installation."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from flashhead_edge import native

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "native").is_dir(), reason="runs in a source tree")


@pytest.fixture(scope="module")
def build_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_hook", ROOT / "native" / "build_hook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_compiles_and_exports_only_our_functions(build_hook: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "library.so"
    assert build_hook.compile_library(target) is None
    assert ctypes.CDLL(str(target)).flashhead_abi() == native._ABI
    assert list(tmp_path.iterdir()) == [target]
    names = subprocess.run(["nm", "-D", "--defined-only", target], capture_output=True, text=True, check=True).stdout
    exported = {line.split()[-1] for line in names.splitlines()}
    assert {name for name in exported if not name.startswith("flashhead_")} == {"RegisterCustomOps"}


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("FLASHHEAD_EDGE_NATIVE", "0", "is 0"),
        ("CXX", "/no/such/compiler", "could not run"),
        ("CXX", "false", "failed"),
    ],
)
def test_without_a_compiler_there_is_a_reason_and_no_file(
    build_hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert reason in build_hook.compile_library(tmp_path / "library.so")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("native", [True, False])
def test_the_wheel_has_the_library_or_is_for_any_platform(tmp_path: Path, native: bool) -> None:
    environment = dict(os.environ) | ({} if native else {"CXX": "/no/such/compiler"})
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = tmp_path.glob("*.whl")
    assert path.name.endswith("-py3-none-any.whl") is not native
    assert ("flashhead_edge/native/_flashhead_edge.so" in zipfile.ZipFile(path).namelist()) is native
    assert ("without its native library" in built.stdout + built.stderr) is not native
