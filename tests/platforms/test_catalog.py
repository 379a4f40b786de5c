from __future__ import annotations

import dataclasses
import json
from importlib import resources

import pytest

from flashhead_edge.errors import OptionError, PlatformError
from flashhead_edge.platforms.catalog import JetPack, Platform, find_platform, load_catalog
from flashhead_edge.platforms.platform_fields import FIELDS, FIGURES
from flashhead_edge.platforms.platform_file import tomllib

CATALOG = load_catalog()
PLATFORMS = list(CATALOG.platforms.values())
DATA = sorted((resources.files("flashhead_edge.platforms") / "data").iterdir(), key=lambda file: file.name)
FULL = """
[documents]
sheet = "Data sheet of my board, page 3"

[[jetpack]]
version = "9.9"
cuda = "20.1"
sources = { cuda = "sheet" }

[shared.mine]
family = "own"
precisions = ["fp16", "int8"]
export = { target = "ort", max_positions = 1024 }
sources = { precisions = "sheet" }

[platforms.my-board]
shared = "mine"
title = "My board"
memory_bytes = 4_294_967_296
memory_bandwidth_gb_s = 31.5
jetpacks = ["6.2", "9.9"]
export = { max_positions = 2048 }
sources = { memory_bytes = "sheet", memory_bandwidth_gb_s = "measured with stream on my board", jetpacks = "sheet" }
"""
MINIMAL = '[platforms.my-board]\ntitle = "My board"\nfamily = "own"\n'


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refused(path):
    with pytest.raises(PlatformError) as caught:
        load_catalog([path])
    return caught.value


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_every_figure_has_a_source_and_nothing_else_has(platform):
    given = {name for name in FIGURES if getattr(platform, name) not in (None, ())}
    assert set(platform.sources) == given
    assert all("://" in source or " " in source for source in platform.sources.values())


@pytest.mark.parametrize("release", CATALOG.jetpacks.values(), ids=lambda release: release.version)
def test_every_version_in_a_release_has_a_source(release):
    assert set(release.sources) == {name for name in ("cuda", "tensorrt") if getattr(release, name)}


def test_releases_agree_with_the_table_of_the_detection():
    jetpack = pytest.importorskip("flashhead_edge.platforms.jetpack")
    detected = {release.jetpack: release.tensorrt for release in jetpack.RELEASES}
    for release in CATALOG.jetpacks.values():
        if release.tensorrt and detected.get(release.version):
            assert release.tensorrt.startswith(detected[release.version]), release.version


def test_no_name_in_two_files():
    names = [name for file in DATA for name in tomllib.loads(file.read_text(encoding="utf-8"))["platforms"]]
    assert len(names) == len(set(names))
    assert set(names) == set(CATALOG.platforms)


@pytest.mark.parametrize("file", DATA, ids=lambda file: file.name)
def test_every_document_and_every_shared_table_is_used(file):
    text = file.read_text(encoding="utf-8")
    document = tomllib.loads(text)
    assert [name for name in document.get("documents", {}) if text.count(f'"{name}"') == 0] == []
    used = {fields.get("shared") for fields in document["platforms"].values()}
    assert set(document.get("shared", {})) == used - {None}


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_settings_and_names_are_ours(platform):
    from flashhead_edge.export.options import ExportOptions

    known = {item.name for item in dataclasses.fields(ExportOptions)}
    ExportOptions(**{name: value for name, value in platform.export.items() if name in known})
    assert platform.runtimes
    assert set(platform.runtimes) <= {"onnxruntime", "tensorrt", "vllm", "openvino", "reference"}
    assert platform.providers[-1] == "CPUExecutionProvider"
    assert platform.family in {"jetson", "geforce", "datacenter", "cpu", "accelerator"}
    assert bool(platform.build) == ("tensorrt" in platform.runtimes)
    assert bool(platform.compute_capability) == (platform.family in {"jetson", "geforce", "datacenter"})


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_sparse_peaks_are_twice_the_dense_ones(platform):
    for dense, sparse in (
        (platform.peak_int8_dense_tops, platform.peak_int8_sparse_tops),
        (platform.peak_fp16_dense_tflops, platform.peak_fp16_sparse_tflops),
    ):
        if dense and sparse:
            assert sparse == pytest.approx(2 * dense, rel=1e-3)


def test_platforms_that_people_ask_for():
    nano = find_platform("jetson-orin-nano-8gb")
    assert (nano.compute_capability, nano.memory_bytes, nano.memory_bandwidth_gb_s) == ("8.7", 8 * 2**30, 68)
    assert "fp8" not in nano.precisions
    assert {release.version: release.tensorrt for release in nano.jetpacks}["6.2"] == "10.3"
    assert find_platform(" Jetson-Orin-Nano-8GB ") is nano
    assert find_platform("jetson-agx-thor-t5000").compute_capability == "11.0"
    assert find_platform("geforce-rtx-5090").compute_capability == "12.0"


def test_fields_of_a_file_are_those_of_a_platform():
    assert set(FIELDS) - {"shared"} == {item.name for item in dataclasses.fields(Platform)} - {"name"}


def test_as_dict_is_json():
    for platform in PLATFORMS:
        assert json.loads(json.dumps(platform.as_dict())) == platform.as_dict()


def test_unknown_name_has_a_guess():
    with pytest.raises(OptionError, match="did you mean 'jetson-orin-nano-8gb'") as caught:
        find_platform("jetson-orin-nona-8gb")
    assert caught.value.found == "jetson-orin-nona-8gb"


def test_file_of_the_users(file):
    path = file(FULL)
    board = find_platform("my-board", [path])
    assert board.jetpacks == (CATALOG.jetpacks["6.2"], JetPack("9.9", "20.1", None, {"cuda": SHEET}))
    assert board.export == {"target": "ort", "max_positions": 2048}
    assert board.sources["precisions"] == SHEET
    assert board.memory_bandwidth_gb_s == 31.5
    assert board.peak_int8_dense_tops is None
    assert "my-board" not in load_catalog().platforms
    assert len(load_catalog([path]).platforms) == len(PLATFORMS) + 1


SHEET = "Data sheet of my board, page 3"


def test_smallest_file(file):
    assert find_platform("my-board", [file(MINIMAL)]) == Platform("my-board", "My board", "own")


@pytest.mark.parametrize(
    ("text", "message", "found"),
    [
        ("[platforms\n", "is not a TOML file", "line 1"),
        ("[[platforms]]\n", "wrong kind of platforms", "[{}]"),
        ("platform = 1\n", "has a field that is none", "platform"),
        ("[platforms.My_Board]\n", "a name that is none", "My_Board"),
        ("[platforms]\nx = 3\n", "wrong kind of x", "3"),
        ('[platforms.x]\ntitle = "X"\n', "has no family", "title"),
        (MINIMAL + "memory = 4\n", "has a field that is none", "memory"),
        (MINIMAL + "memory_bytes = 4096\n", "does not say where memory_bytes is from", "no source"),
        (MINIMAL + "memory_bytes = true\n", "wrong kind of memory_bytes", "True"),
        (MINIMAL + "memory_bytes = -1\n", "wrong kind of memory_bytes", "-1"),
        (MINIMAL + "memory_bandwidth_gb_s = inf\n", "wrong kind of memory_bandwidth_gb_s", "inf"),
        (MINIMAL + "memory_bandwidth_gb_s = nan\n", "wrong kind of memory_bandwidth_gb_s", "nan"),
        (MINIMAL + 'precisions = ["fp16", "int5"]\n', "wrong kind of precisions", "int5"),
        (MINIMAL + "precisions = [[1]]\n", "wrong kind of precisions", "[[1]]"),
        (MINIMAL + "compute_capability = 8.7\n", "wrong kind of compute_capability", "8.7"),
        (MINIMAL + 'runtimes = ["onnxruntime", "onnxruntime"]\n', "wrong kind of runtimes", "onnxruntime"),
        (MINIMAL + 'title = "again"\n', "is not a TOML file", "overwrite"),
        (MINIMAL + 'sources = { memory_bytes = "a sheet" }\n', "has a field that is none", "memory_bytes"),
        (MINIMAL + 'memory_bytes = 1\nsources = { memory_bytes = "sheet" }\n', "a source that is not there", "sheet"),
        (MINIMAL + "memory_bytes = 1\nsources = { memory_bytes = 7 }\n", "wrong kind of memory_bytes", "7"),
        (MINIMAL + 'shared = "orin"\n', "shares facts that are not there", "orin"),
        (MINIMAL + "shared = [1]\n", "wrong kind of shared", "[1]"),
        (MINIMAL + 'jetpacks = ["6.22"]\nsources = { jetpacks = "a sheet" }\n', "JetPack that is not", "6.22"),
        (MINIMAL + 'export = { target = "tensorflow" }\n', "wrong kind of target", "tensorflow"),
        (MINIMAL + "build = { workspace = 1 }\n", "has a field that is none", "workspace"),
        ("[shared]\norin = 1\n", "wrong kind of orin", "1"),
        ("[documents]\nsheet = 1\n", "wrong kind of sheet", "1"),
        ('[[jetpack]]\ncuda = "12"\n', "has no version", "cuda"),
        ('[[jetpack]]\nversion = "6.2"\n', "a second time", "6.2"),
        ('[[jetpack]]\nversion = "9"\ncuda = "20"\n', "does not say where cuda is from", "no source"),
        (
            '[platforms.jetson-xavier-nx]\ntitle = "X"\nfamily = "own"\n',
            "describes the platform 'jetson-xavier-nx' a second time",
            "jetson-xavier-nx",
        ),
        (b"\xff\xfe", "cannot be read", "UTF-8"),
    ],
    ids=lambda value: str(value)[:40].replace("\n", " "),
)
def test_damaged_files_are_refused_with_what_to_do(file, text, message, found):
    path = file(text)
    error = refused(path)
    assert message in error.message
    assert found in str(error.found)
    assert "mine.toml" in error.message
    assert error.hint
    assert error.expected


def test_missing_file(tmp_path):
    error = refused(tmp_path / "none.toml")
    assert "none.toml cannot be read" in error.message
    assert error.found == "No such file or directory"
