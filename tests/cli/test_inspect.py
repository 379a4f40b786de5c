from __future__ import annotations

import dataclasses
import json

import pytest
from click.testing import CliRunner

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.cli import main
from flashhead_edge.cli.inspect import bundle_report, head_bytes_per_step, human_bytes
from flashhead_edge.errors import BundleError
from flashhead_edge.manifest import QualityRecord
from tests.tiny_bundle import HIDDEN, LAYERS, VOCAB, write_bundle


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "tiny")


def run(*arguments):
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def changed(manifest, **index):
    return dataclasses.replace(manifest, index=dataclasses.replace(manifest.index, **index))


def test_json_is_all_of_stdout(bundle):
    result = run(bundle, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["vocab_size"], report["hidden_size"], report["num_clusters"]) == (VOCAB, HIDDEN, 4)
    assert report["source"]["name"] == "tiny"
    assert report["body"]["num_layers"] == LAYERS
    assert report["graphs"] == ["decode", "dense"]
    assert report["files"] == {
        file.name: file.stat().st_size for file in bundle.iterdir() if file.name != "flashhead.json"
    }
    assert report["total_bytes"] == sum(report["files"].values())
    assert report["dense_fp16_bytes_per_step"] == VOCAB * HIDDEN * 2
    assert report["verified"] is True


def test_text_says_what_it_holds(bundle):
    result = run(bundle)
    assert result.exit_code == 0
    for words in ("tiny (folder, llama)", "4 of 65 tokens", "not measured", "259 tokens x 32, tied", "hashes right"):
        assert words in result.stdout
    for name in Bundle.open(bundle).manifest.files:
        assert name in result.stdout


def test_bundle_without_a_body(tmp_path):
    folder = write_bundle(tmp_path / "head-only", has_body=False)
    assert json.loads(run(folder, "--json").stdout)["body"] is None
    assert "the bundle holds the head alone" in run(folder).stdout


def test_measured_quality_is_shown(bundle):
    manifest = changed(Bundle.open(bundle).manifest, quality=QualityRecord(2000, 0.9912, 0.99))
    (bundle / "flashhead.json").write_text(manifest.to_json())
    assert "99.12% of 2,000 states" in run(bundle).stdout


@pytest.mark.parametrize(
    ("centroids", "rows", "expected"),
    [
        ("fp32", 128, 4 * 128 + 5 * 128),
        ("int8", 64, 4 * 34 + 5 * 64),
        ("int4", 34, 4 * 18 + 5 * 34),
    ],
    ids=lambda value: str(value),
)
def test_bytes_of_a_step(bundle, centroids, rows, expected):
    manifest = changed(
        Bundle.open(bundle).manifest, centroid_precision=centroids, num_probes=1, cluster_size=3, always_scored=2
    )
    table = manifest.tables[layout.ROWS]
    length = rows * table.shape[0] * table.shape[1]
    manifest = dataclasses.replace(manifest, tables={layout.ROWS: dataclasses.replace(table, length=length)})
    assert head_bytes_per_step(manifest) == expected
    assert head_bytes_per_step(dataclasses.replace(manifest, has_bias=True)) == expected + 5 * 4
    assert bundle_report(manifest, verified=True)["bytes_reduction"] == VOCAB * HIDDEN * 2 / expected


def test_unknown_precision_is_a_bundle_error(bundle):
    with pytest.raises(BundleError, match="precision"):
        head_bytes_per_step(changed(Bundle.open(bundle).manifest, centroid_precision="int3"))


def test_changed_bytes_are_refused_unless_told(bundle):
    graph = bundle / "decode.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    result = run(bundle)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "decode.onnx has changed" in result.stderr
    unchecked = run(bundle, "--no-verify")
    assert unchecked.exit_code == 0
    assert "not hashed" in unchecked.stdout


def test_no_bundle(tmp_path):
    result = run(tmp_path, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_940, "99.9 kB"),
        (671_088_640, "671 MB"),
        (1_240_000_000, "1.2 GB"),
    ],
    ids=str,
)
def test_human_bytes(size, text):
    assert human_bytes(size) == text
