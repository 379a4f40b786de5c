"""The manifest: what is written is read, and whatever does not follow the schema is refused by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashhead_edge.errors import BundleError
from flashhead_edge.layout import SCHEMA_VERSION
from flashhead_edge.manifest import (
    BatchProfile,
    BodyRecord,
    CalibrationRecord,
    FileRecord,
    GraphRecord,
    IndexRecord,
    Manifest,
    QualityRecord,
    SourceRecord,
    TensorRecord,
    TensorRtRecord,
)

TENSORRT = TensorRtRecord(
    form="reduce",
    centroid_precision="int8",
    cluster_precision="fp16",
    opset=17,
    least_compute_capability="7.5",
    batch=BatchProfile(1, 1, 8),
    weights={"head.rows": TensorRecord("head.onnx.data", "float16", [64, 16, 64], 0, 131072)},
)

MANIFEST = Manifest(
    created_by="flashhead-edge 0.1",
    source=SourceRecord("hub", "someone/modèle", "gemma3_text", "ab" * 32),
    vocab_size=1000,
    hidden_size=64,
    tied=True,
    logit_scale=0.0625,
    logit_softcap=30.0,
    has_bias=True,
    embedding_scale=8.0,
    bos_token_ids=[2],
    eos_token_ids=[1, 106],
    always_scored_ids=[1, 106, 107],
    index=IndexRecord(
        num_clusters=63,
        cluster_size=16,
        num_probes=8,
        always_scored=16,
        rows_scored=207,
        reduction=4.83,
        centroid_precision="int8",
        cluster_precision="fp16",
        clustering_seconds=1.25,
        calibration=CalibrationRecord("builtin", 4000, 0),
        quality=QualityRecord(1000, 0.998, None),
    ),
    graphs={
        "head": GraphRecord("head.onnx", ["hidden_states"], ["token_ids"]),
        "head_tensorrt": GraphRecord("head.tensorrt.onnx", ["hidden_states", "head.rows"], ["token_ids"], TENSORRT),
    },
    tables={"head.rows": TensorRecord("head.onnx.data", "float16", [64, 16, 64], 0, 131072)},
    body=BodyRecord("int4", 64, 1, 1, 64, 2048, ["pk"], ["pv"], ["nk"], ["nv"]),
    files={"head.onnx": FileRecord(10, "0" * 64), "head.onnx.data": FileRecord(131072, "1" * 64)},
)
DOCUMENT: dict[str, Any] = json.loads(MANIFEST.to_json())
#: Their keys are names, not part of the schema.
FREE = {("graphs",), ("tables",), ("files",), ("graphs", "head_tensorrt", "tensorrt", "weights")}
Path_ = tuple[Any, ...]


def paths(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Every place of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from paths(item, (*at, key))


def change(path: Path_, *value: Any) -> str:
    """The document with one value replaced, or removed where none is given."""
    document = copy.deepcopy(DOCUMENT)
    place = document
    for key in path[:-1]:
        place = place[key]
    if value:
        place[path[-1]] = value[0]
    else:
        del place[path[-1]]
    return json.dumps(document)


def at(path: Path_) -> Any:
    value = DOCUMENT
    for key in path:
        value = value[key]
    return value


#: Only a graph for TensorRT has it.
OPTIONAL = {("graphs", name, "tensorrt") for name in DOCUMENT["graphs"]}
KEYS = [
    path for path in paths(DOCUMENT) if isinstance(path[-1], str) and path[:-1] not in FREE and path not in OPTIONAL
]
OBJECTS = [(), *(path for path in paths(DOCUMENT) if isinstance(at(path), dict) and path not in FREE)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize(
    "manifest",
    [MANIFEST, replace(MANIFEST, body=None, logit_softcap=None, tables={}, graphs={}, files={}, eos_token_ids=[])],
    ids=["full", "least"],
)
def test_what_is_written_is_read(manifest: Manifest) -> None:
    text = manifest.to_json()
    assert Manifest.from_json(text) == manifest
    assert Manifest.from_json(text).to_json() == text


def test_the_text_is_for_people_too() -> None:
    text = MANIFEST.to_json()
    assert text.startswith('{\n  "schema_version": 1,')
    assert text.endswith("}\n")
    assert "modèle" in text


def test_whole_numbers_are_fine_where_any_number_is() -> None:
    manifest = Manifest.from_json(change(("logit_scale",), 2))
    assert manifest.logit_scale == 2.0
    assert isinstance(manifest.logit_scale, float)


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(map(str, path)))
def test_every_missing_key_is_refused_by_name(path: Path_) -> None:
    with pytest.raises(BundleError, match=path[-1]):
        Manifest.from_json(change(path))


def test_what_only_some_graphs_have_may_be_missing() -> None:
    """As in bundles from before it was there."""
    manifest = Manifest.from_json(change(("graphs", "head", "tensorrt")))
    assert manifest == MANIFEST


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: ".".join(map(str, path)) or "document")
def test_unknown_keys_are_refused_by_name(path: Path_) -> None:
    with pytest.raises(BundleError, match="unknown 'surprise'"):
        Manifest.from_json(change((*path, "surprise"), 1))


@pytest.mark.parametrize("path", list(paths(DOCUMENT)), ids=lambda path: ".".join(map(str, path)))
def test_values_of_the_wrong_type_are_refused_by_name(path: Path_) -> None:
    if path == ("schema_version",):
        return
    for wrong in (True, 1.5, 7, "text", [], {}, [None], None):
        fits = (
            type(wrong) is type(at(path))
            or (wrong is None and path in OPTIONAL)
            or (wrong is None and path[-2:] == ("tensorrt", "centroid_precision"))
            or (isinstance(at(path), float) and type(wrong) is int)
            or (wrong is None and path in {("body",), ("logit_softcap",)} | {("index", "quality", "agreement")})
            or (wrong is None and path[:2] == ("index", "quality") and path[-1] == "containment")
            or (path == ("index", "quality", "agreement") and type(wrong) in (int, float))
        )
        if not fits:
            with pytest.raises(BundleError, match=str(path[-1])):
                Manifest.from_json(change(path, wrong))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(list(paths(DOCUMENT))), JSON)
def test_whatever_stands_anywhere_is_read_or_refused(path: Path_, value: Any) -> None:
    try:
        manifest = Manifest.from_json(change(path, value))
    except BundleError:
        return
    text = manifest.to_json()
    assert Manifest.from_json(text).to_json() == text


@pytest.mark.parametrize(("version", "hint"), [(SCHEMA_VERSION + 1, "pip install --upgrade"), (0, "export the model")])
def test_other_schema_versions_are_refused_with_what_to_do(version: int, hint: str) -> None:
    """Whatever else such a document holds."""
    with pytest.raises(BundleError, match=f"version {version}, made by flashhead-edge 9") as caught:
        Manifest.from_json(json.dumps({"schema_version": version, "created_by": "flashhead-edge 9", "new": {}}))
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        "{}",
        '{"schema_version": "1"}',
        '{"schema_version": null}',
        '{"schema_version": 1.0}',
        '{"schema_version": true}',
        "\ufeff{}",
        pytest.param("[" * 100_000, id="deep"),
        pytest.param("1" * 5000, id="a long number"),
        pytest.param(change(("logit_scale",), 10**400), id="a number beyond any float"),
    ],
)
def test_other_documents_are_refused(text: str) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    text = change(("logit_scale",), "@").replace('"@"', number)
    with pytest.raises(BundleError, match="logit_scale"):
        Manifest.from_json(text)
