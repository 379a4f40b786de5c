from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from benchmarks import render_tables
from tests.profiling.profiles import MEASURED

MACHINE = {"cpu_model": "Some CPU", "logical_cores": 2, "packages": {"numpy": "2.0"}}
DEMO = {
    "model": "gemma3-270m",
    "machine": MACHINE,
    "body_precision": "int4",
    "threads": 2,
    "reduction": 10.6,
    "prompts": 4,
    "new_tokens": 64,
    "rounds": 5,
    "rows": [
        {
            "head": "two-stage",
            "tokens_per_second_p50": 147.04,
            "step_ms_p50": 6.8,
            "ratio_to_dense_int8": 1.531,
            "agreement": 0.9912,
            "head_bytes_per_token": 26_900_000,
            "peak_rss_bytes": 326_000_000,
        }
    ],
}
PAGE = "# Title\n\n<!-- table:{0} -->\n{1}<!-- /table:{0} -->\n\nAfter it.\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A tree of its own with no results yet."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(render_tables, "ROOT", tmp_path)
    monkeypatch.setattr(render_tables, "RESULTS", tmp_path / "results")
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["render_tables", *arguments])
    return render_tables.main()


@pytest.mark.parametrize("name", render_tables.TABLES)
def test_missing_files_are_not_measured(name, root):
    text = render_tables.render(PAGE.format(name, "| old |\n"))
    assert "not measured\n<!-- /table" in text
    assert "|" not in text


def test_a_table_is_made_anew_between_its_marks(root):
    (root / "results" / "demo-gemma3-270m.json").write_text(json.dumps(DEMO))
    text = render_tables.render(PAGE.format("demo", "old\n"))
    assert "| two-stage | 147 | 1.53 | 0.991 | 27 | 326 |" in text.splitlines()
    assert "old\n" not in text
    assert text.startswith("# Title\n\n<!-- table:")
    assert text.endswith("\n\nsmollm2: not measured\n<!-- /table:demo -->\n\nAfter it.\n")
    assert render_tables.render(text) == text


def test_batches_of_a_model_without_a_result_are_left_out(root):
    rows = [{"batch": 1, "head": name, "ms_p50": 2.0} for name in ("dense int8", "dense int4", "standard operators")]
    report = {
        "vocab_size": 1000,
        "hidden_size": 64,
        "threads": 2,
        "machine": MACHINE,
        "kernels": "avx2",
        "heads": [*rows, {"batch": 1, "head": "native", "ms_p50": 0.5}],
    }
    (root / "results" / "native-head-smollm2.json").write_text(json.dumps(report))
    text = render_tables.TABLES["head_batches"]()
    assert text.startswith("1,000 x 64, milliseconds of the head, 2 threads of Some CPU, kernels avx2, medians.\n\n")
    assert text.splitlines()[-1] == "| 1 | 2.00 | 2.00 | 2.00 | 0.50 | 4.0 |"
    assert "not measured" not in text


def test_plots_stand_below_the_stages_of_profiles(root, monkeypatch):
    dense = replace(MEASURED, model=replace(MEASURED.model, head="dense"))
    for suffix, profile in (("", MEASURED), ("-dense", dense)):
        (root / "results" / f"profile-gemma3-270m{suffix}.json").write_text(profile.to_json())
    text = render_tables.TABLES["profiles"]()
    assert text.startswith("gemma3-270m, 2 threads of Some CPU")
    assert text.endswith(
        "smollm2: not measured\n\n![Time of a decode step](images/profile-breakdown.svg)\n\n"
        "![Agreement against time](images/profile-pareto.svg)"
    )
    assert run(monkeypatch) == 0
    images = root / "docs" / "images"
    assert {path.name for path in images.iterdir()} == {"profile-breakdown.svg", "profile-pareto.svg"}
    assert (images / "profile-pareto.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("name", render_tables.TABLES)
def test_committed_results_make_whole_tables(name):
    text = render_tables.TABLES[name]()
    if "|" not in text:
        assert render_tables.NOT_MEASURED in text
        pytest.skip(f"{name} is not measured")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 3
    heads = [i for i, row in enumerate(rows) if row.startswith("| ---")]
    for start, stop in zip(heads, [*heads[1:], len(rows) + 1], strict=True):
        assert len({row.count("|") for row in rows[start - 1 : stop - 1]}) == 1


def test_unknown_table_is_refused():
    with pytest.raises(SystemExit, match="no table 'speed'"):
        render_tables.render(PAGE.format("speed", ""))


def test_check_fails_on_a_stale_page_and_changes_nothing(root, monkeypatch, capsys):
    page = root / "docs" / "figures.md"
    page.write_text(PAGE.format("demo", ""))
    assert run(monkeypatch, "--check") == 1
    assert "docs/figures.md" in capsys.readouterr().out
    assert page.read_text() == PAGE.format("demo", "")
    assert run(monkeypatch) == 0
    assert "not measured" in page.read_text()
    assert run(monkeypatch, "--check") == 0
    (root / "results" / "demo-gemma3-270m.json").write_text(json.dumps(DEMO))
    assert run(monkeypatch, "--check") == 1


def test_the_pages_are_up_to_date(monkeypatch, capsys):
    assert run(monkeypatch, "--check") == 0, f"{capsys.readouterr().out}run: python -m benchmarks.render_tables"
