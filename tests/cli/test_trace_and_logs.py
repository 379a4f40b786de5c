"""``generate --trace``, and log lines of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flashhead_edge.cli import main
from tests.tiny_bundle import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_a_trace_is_written(bundle: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    options = ["--max-new-tokens", 5, "--min-tokens", 5, "--runtime", "onnxruntime", "--json"]
    result = run("generate", bundle, "abc", "--trace", trace, *options)
    assert result.exit_code == 0, result.output
    names = [event["name"] for event in json.loads(trace.read_text())["traceEvents"]]
    assert names.count("choice") == len(json.loads(result.stdout)["token_ids"]) == 5


def test_log_lines_go_to_stderr(bundle: str) -> None:
    options = ["--max-new-tokens", 2, "--runtime", "onnxruntime", "--json"]
    result = run("--log-level", "info", "--log-format", "json", "generate", bundle, "abc", *options)
    assert result.exit_code == 0, result.output
    json.loads(result.stdout)
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert "text generated" in [line["message"] for line in lines]
    quiet = run("generate", bundle, "abc", *options)
    assert quiet.stderr == ""


def test_unknown_levels_are_wrong_use(bundle: str) -> None:
    assert run("--log-level", "loud", "inspect", bundle).exit_code == 2
