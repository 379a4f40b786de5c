from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from flashhead_edge.cli import main
from flashhead_edge.cli.platforms import markdown_table, table_rows
from flashhead_edge.platforms.catalog import load_catalog

NAMES = list(load_catalog().platforms)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "platforms.md"


def run(*arguments):
    return CliRunner().invoke(main, ["platforms", *map(str, arguments)])


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[platforms.my-board]\ntitle = "My board"\nfamily = "own"\nmemory_bytes = 1_073_741_824\n'
        'sources = { memory_bytes = "what free -b says" }\n'
    )
    return path


@pytest.mark.parametrize("arguments", [(), ("list",)], ids=["group", "list"])
def test_table(arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    head, *rows = result.stdout.splitlines()
    assert head.startswith("platform ")
    assert [row.split()[0] for row in rows] == NAMES


@pytest.mark.parametrize("arguments", [("--json",), ("list", "--json"), ("--json", "list")], ids=" ".join)
def test_json_is_all_of_stdout(arguments):
    report = json.loads(run(*arguments).stdout)
    assert [platform["name"] for platform in report["platforms"]] == NAMES


@pytest.mark.parametrize("arguments", [("show", "nvidia-l4", "--json"), ("--json", "show", "nvidia-l4")], ids=" ".join)
def test_json_of_one_platform(arguments):
    platform = json.loads(run(*arguments).stdout)
    assert (platform["name"], platform["compute_capability"]) == ("nvidia-l4", "8.9")
    assert platform["peak_int8_dense_tops"] is None
    assert platform["sources"]["compute_capability"].startswith("https://")


def test_show():
    text = run("show", "jetson-orin-nano-8gb").stdout
    for line in (
        r"jetson-orin-nano-8gb: NVIDIA Jetson Orin Nano 8GB",
        r"memory +8 GiB",
        r"memory bandwidth +68 GB/s",
        r"peak int8, sparse +40 TOPS",
        r"peak fp16, dense +-",
        r"build .*on_device true",
        r"JetPack 6\.2 +CUDA 12\.6, TensorRT 10\.3",
        r"  memory bandwidth: NVIDIA Jetson Orin Nano Series Data Sheet .*",
    ):
        assert re.search(f"^{line}", text, re.MULTILINE), line
    assert "The 70 TOPS of the module" in run("show", "jetson-orin-nx-8gb").stdout


@pytest.mark.parametrize("name", NAMES)
def test_every_platform_can_be_shown(name):
    assert run("show", name).exit_code == 0


@pytest.mark.parametrize("before", [True, False], ids=["group", "command"])
def test_file_adds_platforms(mine, before):
    option = ("--file", mine)
    result = run(*option, "show", "my-board") if before else run("show", "my-board", *option)
    assert result.exit_code == 0
    assert "what free -b says" in result.stdout
    listed = json.loads((run(*option, "list", "--json") if before else run("list", "--json", *option)).stdout)
    assert listed["platforms"][-1]["name"] == "my-board"


def test_smallest_platform_can_be_shown(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text('[platforms.small]\ntitle = "Small"\nfamily = "own"\n')
    result = run("show", "small", "--file", path)
    assert result.exit_code == 0
    assert "sources" not in result.stdout


def test_unknown_platform_is_wrong_use():
    result = run("show", "nvidia-h100")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.search(r"did you mean .*'nvidia-h100-80gb'", result.stderr)


def test_damaged_file_fails(mine):
    mine.write_text("[platforms")
    result = run("--file", mine, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "is not a TOML file" in result.stderr


def test_missing_file_fails(tmp_path):
    result = run("list", "--file", tmp_path / "none.toml")
    assert result.exit_code == 1
    assert "cannot be read" in result.stderr


@pytest.mark.skipif(not PAGE.is_file(), reason="runs in a source tree")
def test_page_has_the_table_that_the_data_renders_to():
    table = markdown_table(table_rows(load_catalog().platforms.values()))
    assert run("list", "--markdown").stdout == table + "\n"
    page = PAGE.read_text(encoding="utf-8")
    assert table in page, "put the output of `flashhead-edge platforms list --markdown` into docs/platforms.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="runs in a source tree")
def test_example_of_the_page_can_be_read(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mine.toml").write_text(example)
    assert run("show", "my-board-8gb", "--file", tmp_path / "mine.toml").exit_code == 0
