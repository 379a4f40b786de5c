"""What docs/jetson.md says that our commands print, they print, told that they are on such a board."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from flashhead_edge.cli import main
from flashhead_edge.platforms.overrides import PREFIX
from flashhead_edge.runtimes.tensorrt.probe import is_installed
from tests.tiny_bundle import write_bundle
from tests.tiny_engines import engine_bundle

PAGE = Path(__file__).resolve().parent.parent / "docs" / "jetson.md"
BLOCK = re.compile(r"<!-- says: (?P<command>.+?) \| (?P<given>.+?) -->\n```\n(?P<said>.+?)```", re.DOTALL)


def blocks() -> list[re.Match[str]]:
    return list(BLOCK.finditer(PAGE.read_text(encoding="utf-8"))) if PAGE.exists() else []


pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="runs in a source tree")


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block["command"])
def test_lines_come_in_this_order(block: re.Match[str], tmp_path: Path) -> None:
    bundles = {
        "BUNDLE": lambda: str(write_bundle(tmp_path / "bundle")),
        "ENGINE_BUNDLE": lambda: str(engine_bundle(tmp_path / "engines").path),
    }
    if "tensorrt is not installed" in block["said"] and is_installed("tensorrt"):
        pytest.skip("TensorRT is installed here")
    arguments = [bundles[word]() if word in bundles else word for word in block["command"].split()]
    facts = dict(fact.split("=", 1) for fact in block["given"].split("; "))
    result = CliRunner().invoke(main, arguments, env={PREFIX + name: value for name, value in facts.items()})
    said = re.sub(r" \[overridden by [^\]]+\]", "", result.output).splitlines()
    lines = block["said"].splitlines()
    assert [line for line in said if line in lines] == lines, result.output or result.exception


def test_there_are_blocks() -> None:
    assert len(blocks()) > 5
