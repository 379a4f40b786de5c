from __future__ import annotations

from pathlib import Path

import pytest

from flashhead_edge.errors import OptionalDependencyError, RuntimeUnavailableError
from flashhead_edge.runtimes.tensorrt.probe import is_installed, probe
from tests.tensorrt_bindings.standin import write_package
from tests.tiny_engines import needs_polygraphy


@pytest.fixture
def package_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that this process and its children import from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.tensorrt
def test_tensorrt_for_rtx_tells_its_version_and_its_gpus() -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    found = probe("tensorrt-rtx")
    assert found.version == rtx.__version__
    assert found.targets is not None
    assert {"8.0", "8.6", "8.9", "12.0"} <= set(found.targets)


@pytest.mark.tensorrt
@needs_polygraphy
@pytest.mark.parametrize("version", ["8.6.1", "10.16.1.11"])
def test_tensorrt_tells_its_version(package_folder: Path, version: str) -> None:
    write_package(package_folder, version)
    assert is_installed("tensorrt")
    found = probe("tensorrt")
    assert (found.version, found.targets) == (version, None)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(OptionalDependencyError, match=r"flashhead-edge\[tensorrt\]"):
        probe("tensorrt")


def test_a_package_that_does_not_load_says_why(package_folder: Path) -> None:
    (package_folder / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    (package_folder / "polygraphy.py").write_text("")
    with pytest.raises(RuntimeUnavailableError, match=r"libnvinfer\.so\.10: cannot open") as caught:
        probe("tensorrt")
    assert "doctor" in str(caught.value)
