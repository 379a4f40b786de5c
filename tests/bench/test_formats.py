from __future__ import annotations

import csv
import io
import json
from dataclasses import fields, replace

import pytest

from flashhead_edge.bench.formats import FORMATS, format_rows, load_warning
from flashhead_edge.bench.options import BenchRow

ROW = BenchRow(
    model="tiny",
    test="tg8",
    head="two-stage",
    runtime="onnxruntime 1",
    batch=1,
    threads=2,
    tokens_per_second_p50=100.0,
    tokens_per_second_min=90.0,
    tokens_per_second_max=110.0,
    ratio_p50=2.0,
    baseline="dense-int8",
    rounds=3,
    other_load=0.0,
    heavy_load=False,
    cpu_model="a processor",
    native_kernels=None,
    version="0",
)
FULL = replace(ROW, head="dense-int8", step_ms_p50=3.0, head_ms_p50=0.5, agreement=0.99, peak_rss_bytes=5_000_000)
BUSY = replace(ROW, other_load=1.5, heavy_load=True)


def test_json_is_a_list_of_rows_with_the_promised_keys():
    rows = json.loads(format_rows([ROW, FULL], "json"))
    assert [row["head"] for row in rows] == ["two-stage", "dense-int8"]
    promised = "test head runtime batch threads tokens_per_second_p50 step_ms_p50 head_ms_p50 peak_rss_bytes agreement"
    assert set(promised.split()) <= set(rows[0])
    assert [json.loads(line) for line in format_rows([ROW, FULL], "jsonl").splitlines()] == rows


def test_csv_has_every_field():
    rows = list(csv.DictReader(io.StringIO(format_rows([FULL], "csv"))))
    assert list(rows[0]) == [field.name for field in fields(BenchRow)]
    assert rows[0]["agreement"] == "0.99"


def test_markdown_is_one_table():
    lines = format_rows([ROW, FULL], "md").splitlines()
    assert lines[0] == "tiny; ratios are to dense-int8"
    table = lines[2:]
    assert {line.count("|") for line in table} == {12}
    assert "| 3.00 | 0.50 | 0.9900 | 5 |" in table[-1]
    assert "J/token" not in table[0]
    assert "J/token" in format_rows([replace(ROW, energy_j_per_token=0.5)], "md")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_busy_machine_is_said(kind):
    assert load_warning([ROW]) is None
    assert "1.5 cores" in load_warning([ROW, BUSY])
    text = format_rows([BUSY], kind)
    assert "1.5 cores" in text if kind == "md" else "1.5" in text
