from __future__ import annotations

import json
import sys

import pytest

from benchmarks import render_tables

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
METHOD = {"num_clusters": 16384, "cluster_size": 16, "seconds": 24.13, "peak_over_rows": 2.29}
SHARES = {"128": 0.95, "256": 0.987, "512": 0.994}
CLUSTERING = {
    "machine": MACHINE,
    "threads": 2,
    "shapes": [
        {
            "vocab_size": 262144,
            "hidden_size": 640,
            "data": "rows of a model",
            "methods": [
                {**METHOD, "method": "balanced bisection", "iterations": None, "containment": SHARES},
                {**METHOD, "method": "spherical k-means", "iterations": 6, "containment": None},
            ],
        }
    ],
}
FIGURES = {
    "positions": 4000,
    "agreement": 0.991,
    "containment": 0.9925,
    "dense_int8_agreement": 0.981,
    "dense_int4_agreement": 0.775,
}
FIDELITY = {
    "machine": MACHINE,
    "models": [{"model": "smollm2", "reduction": 9.52, "teacher_forced": FIGURES, "own_continuations": FIGURES}],
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


@pytest.mark.parametrize(
    ("name", "file", "report", "line"),
    [
        ("demo", "demo-gemma3-270m", DEMO, "| two-stage | 147 | 1.53 | 0.991 | 27 | 326 |"),
        (
            "clustering",
            "clustering",
            CLUSTERING,
            "| 262,144 x 640 | balanced bisection | 16,384 of 16 | 24.1 | 2.29 | 0.987 | 0.994 |",
        ),
        (
            "clustering",
            "clustering",
            CLUSTERING,
            (
                "| 262,144 x 640 | spherical k-means, 6 iterations | 16,384 of 16 | 24.1 | 2.29 "
                "| not measured | not measured |"
            ),
        ),
        (
            "fidelity",
            "fidelity",
            FIDELITY,
            "| smollm2 | 9.52 | teacher forced | 4000 | 0.9925 | 0.9910 | 0.9810 | 0.7750 |",
        ),
    ],
    ids=["demo", "clustering", "clustering without containment", "fidelity"],
)
def test_tables(name, file, report, line, root):
    (root / "results" / f"{file}.json").write_text(json.dumps(report))
    text = render_tables.render(PAGE.format(name, "old\n"))
    assert line in text.splitlines()
    assert "old\n" not in text
    assert text.startswith("# Title\n\n<!-- table:")
    assert text.endswith("\n\nAfter it.\n")
    assert len({row.count("|") for row in text.splitlines() if row.startswith("|")}) == 1
    assert render_tables.render(text) == text


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
