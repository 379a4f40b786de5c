"""``flashhead-edge profile``: what it prints, saves, compares and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flashhead_edge import Bundle
from flashhead_edge.cli import main
from flashhead_edge.profiling.record import read_profile
from tests.profiling.profiles import MEASURED, PREDICTED


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["profile", *map(str, arguments)])


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "measured.json", tmp_path / "predicted.json"
    for path, profile in zip(paths, (MEASURED, PREDICTED), strict=True):
        path.write_text(profile.to_json(), encoding="utf-8")
    return paths


def test_json_and_a_file(whole_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    output = tmp_path / "profile.json"
    result = run(whole_bundle().path, "-n", 8, "-t", 1, "--json", "-o", output)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert {"platform", "measured", "stages", "memory", "energy_j_per_token"} <= document.keys()
    assert document["threads"] == 1
    assert json.loads(output.read_text()) == document
    assert f"saved {output}" in result.stderr


def test_it_is_saved_in_the_bundle(whole_bundle: Callable[..., Bundle]) -> None:
    folder = whole_bundle().path
    result = run(folder, "-n", 8, "--head", "dense")
    assert result.exit_code == 0, result.output
    (path,) = (folder / "profiles").iterdir()
    assert read_profile(path).model.head == "dense"
    assert "dense head" in result.stdout
    assert path.name in result.stderr


def test_a_difference(saved: tuple[Path, Path]) -> None:
    result = run("--diff", *saved)
    assert result.exit_code == 0, result.output
    assert "measured: True / False" in result.stdout
    document = json.loads(run("--diff", *saved, "--json").stdout)
    assert document["stages"][0] == {"name": "body", "first_ms": 3.0, "second_ms": 1.0, "ratio": pytest.approx(1 / 3)}
    assert document["circumstances"]["threads"] == [2, None]


def test_a_report_of_saved_profiles(saved: tuple[Path, Path], tmp_path: Path) -> None:
    report, plots = tmp_path / "report.html", tmp_path / "plots"
    result = run("--from", saved[0], "--from", saved[1], "--report", report, "--plots", plots)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "<!DOCTYPE html>" in report.read_text(encoding="utf-8")
    assert (plots / "breakdown.svg").is_file()
    assert (plots / "breakdown.png").read_bytes().startswith(b"\x89PNG")


def test_layers_of_an_engine(whole_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    layers, output = tmp_path / "layers.json", tmp_path / "profile.json"
    layer = {"name": "/head/select/TopK", "timeMs": 3.0, "averageMs": 0.03, "percentage": 100.0}
    layers.write_text(json.dumps([{"count": 100}, layer]))
    result = run(whole_bundle().path, "--tensorrt-layers", layers, "-o", output, "--json")
    assert result.exit_code == 0, result.output
    profile = read_profile(output)
    assert (profile.runtime, profile.steps, profile.step_ms) == ("tensorrt", 100, 0.03)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Missing argument 'BUNDLE'"),
        (["BUNDLE", "--diff", "A", "B"], "Missing argument 'BUNDLE'"),
        (["--from", "A"], "--from and --bench are for"),
        (["BUNDLE", "-n", 1], "number of tokens"),
        (["BUNDLE", "--head", "dense", "--scaling"], "two-stage head"),
    ],
)
def test_wrong_use(
    arguments: list[object], complaint: str, saved: tuple[Path, Path], whole_bundle: Callable[..., Bundle]
) -> None:
    known = {"A": saved[0], "B": saved[1], "BUNDLE": whole_bundle().path}
    result = run(*(known.get(argument, argument) if isinstance(argument, str) else argument for argument in arguments))
    assert result.exit_code == 2
    assert complaint in result.output


def test_a_file_that_is_no_profile(saved: tuple[Path, Path]) -> None:
    saved[1].write_text("{}")
    result = run("--diff", *saved)
    assert result.exit_code == 1
    assert "predicted.json is not what it should be" in result.output
