from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from flashhead_edge.cli import main
from tests.tiny_bundle import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return str(write_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


def run(*arguments):
    return CliRunner().invoke(main, ["bench", *arguments])


def test_json(bundle):
    result = run(bundle, "-p", "0", "-n", "4,8", "-t", "1", "-r", "2", "--head", "two-stage", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["test"] for row in rows] == ["tg4", "tg8"]
    assert rows[0]["head"] == rows[0]["baseline"] == "two-stage"


def test_a_file(bundle, tmp_path):
    output = tmp_path / "rows.csv"
    options = ["-p", "4", "-n", "0", "-t", "1,2", "-r", "1", "--head", "two-stage", "--format", "csv"]
    result = run(bundle, *options, "-o", str(output))
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert len(output.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", "many"], "whole numbers"),
        (["--head", "dense-int9"], "dense-int8"),
        (["-p", "0", "-n", "0"], "nothing to measure"),
        (["--against", "llama.cpp=."], "--gguf"),
    ],
)
def test_wrong_use(bundle, options, message):
    result = run(bundle, *options)
    assert result.exit_code == 2
    assert message in result.output
