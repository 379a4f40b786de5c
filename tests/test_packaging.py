"""The wheel holds all of the package and nothing else, and its metadata says what there is to install."""

from __future__ import annotations

import email.parser
import re
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import flashhead_edge

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "flashhead_edge"

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="runs in a source tree")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    return email.parser.Parser().parsestr(wheel.read(name).decode())


def test_wheel_holds_every_source_file(wheel: zipfile.ZipFile) -> None:
    sources = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    assert sources - set(wheel.namelist()) == set()


@pytest.mark.parametrize(
    "name",
    ["py.typed", "export/data/calibration.jsonl"]
    + [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob("platforms/data/*.toml")],
)
def test_wheel_holds_the_data_files(wheel: zipfile.ZipFile, name: str) -> None:
    assert wheel.read(f"flashhead_edge/{name}") == (PACKAGE / name).read_bytes()


def test_wheel_holds_nothing_but_the_package(wheel: zipfile.ZipFile) -> None:
    folders = {name.split("/")[0] for name in wheel.namelist()}
    assert folders == {"flashhead_edge", f"flashhead_edge-{flashhead_edge.__version__}.dist-info"}
    assert [name for name in wheel.namelist() if "__pycache__" in name or "/tests/" in name] == []


def test_wheel_carries_the_license(wheel: zipfile.ZipFile, metadata: Message) -> None:
    (name,) = [n for n in wheel.namelist() if n.endswith("/licenses/LICENSE")]
    assert "Apache License" in wheel.read(name).decode()
    assert metadata["License-Expression"] == "Apache-2.0"


def test_wheel_defines_the_command(wheel: zipfile.ZipFile) -> None:
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt")]
    assert "flashhead-edge = flashhead_edge.cli:main" in wheel.read(name).decode()


def test_metadata_version_is_the_package_version(metadata: Message) -> None:
    assert metadata["Version"] == flashhead_edge.__version__


def test_metadata_has_the_extras(metadata: Message) -> None:
    assert {"cpu", "gpu", "export", "demo", "dev"} <= set(metadata.get_all("Provides-Extra", []))


def test_a_device_installs_no_heavy_package_and_no_choice_of_onnx_runtime(metadata: Message) -> None:
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in required}
    assert names == {"click", "numpy", "safetensors", "tokenizers", "tomli"}


def test_constraints_pin_every_package_of_the_extras(metadata: Message) -> None:
    pins = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    wanted = {
        re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line, maxsplit=1)[0]).lower()
        for line in metadata.get_all("Requires-Dist", [])
        if re.search(r"extra == '(cpu|export|demo|dev)'", line) or "extra ==" not in line
    }
    assert wanted - pins - {"flashhead-edge"} == set()
