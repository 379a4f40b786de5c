"""Opening bundles: nothing damaged, foreign or pointing elsewhere gets through."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle, hash_file
from flashhead_edge.errors import BundleError
from flashhead_edge.manifest import FileRecord
from tests.tiny_heads import head_bundle, int8_head, random_head, random_index, table_bias, table_rows

HEAD = random_head(60, 32, bias=True)
INDEX = random_index(HEAD, 4, always=(1,))
FILES = [layout.HEAD_GRAPH, layout.DENSE_GRAPH, layout.HEAD_DATA, layout.INDEX]
Document = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    head_bundle(tmp_path / "bundle", HEAD, INDEX, 3, rows="float16")
    return tmp_path / "bundle"


@pytest.fixture
def edit(folder: Path) -> Callable[[Callable[[Document], object]], None]:
    """Changes the manifest, as someone who means harm would."""

    def change(action: Callable[[Document], object]) -> None:
        path = folder / layout.MANIFEST
        document = json.loads(path.read_text(encoding="utf-8"))
        action(document)
        path.write_text(json.dumps(document), encoding="utf-8")

    return change


def test_a_whole_bundle_opens(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert sorted(bundle.manifest.files) == sorted(FILES)
    assert bundle.path == folder
    assert bundle.file(layout.INDEX) == folder / layout.INDEX
    assert bundle.graph("head").outputs == ["token_ids", "candidate_ids", "candidate_logits", "cluster_scores"]
    assert Bundle.open(str(folder)).manifest == bundle.manifest


def test_tables_are_mapped_as_they_were_written(folder: Path) -> None:
    bundle = Bundle.open(folder)
    rows = bundle.table(layout.ROWS)
    assert isinstance(rows, np.memmap)
    assert not rows.flags.writeable
    np.testing.assert_array_equal(rows, table_rows(HEAD, INDEX, "float16"))
    np.testing.assert_array_equal(bundle.table(layout.ROW_BIAS), table_bias(HEAD, INDEX))


def test_the_index_comes_back(folder: Path) -> None:
    index = Bundle.open(folder).index()
    np.testing.assert_array_equal(index.token_order, INDEX.token_order)
    np.testing.assert_array_equal(index.centroids, INDEX.centroids)


def test_hash_file_counts_and_hashes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000  # more than one block is read
    (tmp_path / "f").write_bytes(content)
    assert hash_file(tmp_path / "f") == FileRecord(len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_found_anywhere(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for place in (0, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        (folder / name).write_bytes(changed)
        with pytest.raises(BundleError, match=f"{name} has changed"):
            Bundle.open(folder)
    (folder / name).write_bytes(content)
    Bundle.open(folder)


def test_without_verification_sizes_still_count(folder: Path) -> None:
    path = folder / layout.HEAD_DATA
    path.write_bytes(bytes(path.stat().st_size))
    Bundle.open(folder, verify=False)
    path.write_bytes(b"")
    with pytest.raises(BundleError, match="wrong size"):
        Bundle.open(folder, verify=False)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, -1])
def test_a_truncated_file_is_found(folder: Path, name: str, kept: int) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:kept])
    with pytest.raises(BundleError, match=f"{name} has the wrong size") as caught:
        Bundle.open(folder)
    assert str(len(content)) in caught.value.expected


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.open(folder)


def test_a_folder_in_the_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / layout.INDEX).unlink()
    (folder / layout.INDEX).mkdir()
    with pytest.raises(BundleError, match="is missing"):
        Bundle.open(folder)


@pytest.mark.parametrize("where", ["absent", "file", "empty folder"])
def test_other_places_are_no_bundles(tmp_path: Path, where: str) -> None:
    path = tmp_path / "place"
    if where == "file":
        path.write_text("{}")
    elif where == "empty folder":
        path.mkdir()
    with pytest.raises(BundleError, match="is not a bundle") as caught:
        Bundle.open(path)
    assert ("is not a folder" in caught.value.found) == (where != "empty folder")
    assert "flashhead-edge export" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"[]", b"\x00" * 64])
def test_a_damaged_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / layout.MANIFEST).write_bytes(content)
    with pytest.raises(BundleError):
        Bundle.open(folder)


def test_a_newer_schema_says_how_to_upgrade(folder: Path, edit: Any) -> None:
    edit(lambda document: document.update(schema_version=layout.SCHEMA_VERSION + 1, more="of it"))
    with pytest.raises(BundleError, match="another schema version") as caught:
        Bundle.open(folder)
    assert caught.value.hint == "pip install --upgrade flashhead-edge"


@pytest.mark.parametrize("name", ["../secret", "x/../../secret", "/etc/hostname", "..", "a/../b"])
def test_paths_out_of_the_folder_are_refused(folder: Path, edit: Any, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"s")
    edit(lambda document: document["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))
    with pytest.raises(BundleError, match="outside the bundle") as caught:
        Bundle.open(folder)
    assert caught.value.found == name


@pytest.mark.parametrize(
    "name",
    ["nul\0byte", "n" * 5000, "", ".", "head.onnx/x", "\ud800"],
    ids=["nul", "long", "empty", "dot", "below", "half"],
)
def test_names_that_no_file_can_have_are_refused(folder: Path, edit: Any, name: str) -> None:
    edit(lambda document: document["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))
    with pytest.raises(BundleError):
        Bundle.open(folder)


@pytest.mark.parametrize("name", FILES)
def test_links_out_of_the_folder_are_refused(folder: Path, name: str) -> None:
    """Though the content is right."""
    outside = folder.parent / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(folder)


def test_linked_folders_out_of_the_folder_are_refused(folder: Path, edit: Any) -> None:
    outside = folder.parent / "elsewhere"
    outside.mkdir()
    (outside / "f").write_bytes(b"s")
    (folder / "engines").symlink_to(outside)
    edit(
        lambda document: document["files"].update(
            {"engines/f": {"bytes": 1, "sha256": hash_file(outside / "f").sha256}}
        )
    )
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(folder)


def test_links_in_circles_are_refused(folder: Path) -> None:
    (folder / layout.INDEX).unlink()
    (folder / layout.INDEX).symlink_to(layout.INDEX)
    with pytest.raises(BundleError):
        Bundle.open(folder)


def test_the_bundle_itself_may_be_a_link_and_files_may_lie_deeper(folder: Path, edit: Any) -> None:
    (folder / "engines").mkdir()
    (folder / "engines" / "f").write_bytes(b"s")
    edit(
        lambda document: document["files"].update(
            {"engines/f": {"bytes": 1, "sha256": hash_file(folder / "engines" / "f").sha256}}
        )
    )
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert Bundle.open(link).file("engines/f").read_bytes() == b"s"


def test_a_bundle_opens_by_a_relative_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert Bundle.open(".").index().vocab_size == 60
    monkeypatch.chdir(folder.parent)
    assert Bundle.open(os.path.join(".", "bundle")).index().vocab_size == 60  # noqa: PTH118


def test_graphs_must_be_listed(folder: Path, edit: Any) -> None:
    edit(lambda document: document["graphs"]["head"].update(file="other.onnx"))
    with pytest.raises(BundleError, match=r"does not hold other\.onnx"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "other.data"}, "does not hold"),
        ({"dtype": "object"}, "do not fill"),
        ({"dtype": "float64"}, "do not fill"),
        ({"dtype": "float32"}, "do not fill"),
        ({"shape": [1, 4, 32]}, "do not fill"),
        ({"shape": [-16, -4, 32]}, "do not fill"),
        ({"shape": [2**62, 4], "length": 0}, "do not fill"),
        ({"shape": [10**30], "length": 2 * 10**30}, "outside"),
        ({"shape": [0, 4, 32], "length": 0}, "do not fill"),
        ({"offset": -4096}, "outside"),
        ({"offset": 10**9}, "outside"),
        ({"offset": 10**30}, "outside"),
        ({"length": 1}, "do not fill"),
    ],
    ids=str,
)
def test_tables_must_lie_in_their_file(folder: Path, edit: Any, change: Document, message: str) -> None:
    edit(lambda document: document["tables"][layout.ROWS].update(change))
    with pytest.raises(BundleError, match=message):
        Bundle.open(folder)


def test_a_table_that_reaches_beyond_the_end_is_refused(folder: Path, edit: Any) -> None:
    size = (folder / layout.HEAD_DATA).stat().st_size
    edit(lambda document: document["tables"][layout.ROWS].update(offset=size - 64))
    with pytest.raises(BundleError, match="lies outside"):
        Bundle.open(folder)


def test_int8_rows_come_with_their_scales(tmp_path: Path) -> None:
    head = int8_head(61, 64)
    index = random_index(head, 4, always=(1,))
    bundle = head_bundle(tmp_path / "int8", head, index, 3, rows="int8")
    np.testing.assert_array_equal(bundle.rows().slots(index.slot_of_token), head.rows)
    assert bundle.manifest.row_bytes == bundle.rows().row_bytes == 64 + 2 * 2
    whole = json.loads((bundle.path / layout.MANIFEST).read_text(encoding="utf-8"))
    for change, message in (
        (lambda tables: tables.pop(layout.ROW_SCALES), "no table 'head.row_scales'"),
        (lambda tables: tables.pop(layout.HIGH_NIBBLES), "no table 'head.high_nibbles'"),
        (lambda tables: tables[layout.LOW_NIBBLES]["shape"].reverse(), "does not describe the rows"),
        (lambda tables: tables[layout.ROW_SCALES]["shape"].reverse(), "does not describe the rows"),
    ):
        changed = json.loads(json.dumps(whole))
        change(changed["tables"])
        (bundle.path / layout.MANIFEST).write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(BundleError, match=message):
            Bundle.open(bundle.path).rows()


def test_what_is_not_there_is_named(folder: Path) -> None:
    bundle = Bundle.open(folder)
    with pytest.raises(BundleError, match="no decode graph") as caught:
        bundle.graph("decode")
    assert "--no-body" in caught.value.hint
    with pytest.raises(BundleError, match="no table 'other'"):
        bundle.table("other")
    with pytest.raises(BundleError, match="does not hold tokenizer"):
        bundle.file(layout.TOKENIZER)


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size"])
def test_an_index_of_another_head_is_refused(folder: Path, edit: Any, key: str) -> None:
    edit(lambda document: document.update({key: document[key] + 1}))
    with pytest.raises(BundleError, match="does not fit the manifest"):
        Bundle.open(folder).index()


@pytest.mark.parametrize("key", ["num_clusters", "cluster_size"])
def test_an_index_with_other_clusters_is_refused(folder: Path, edit: Any, key: str) -> None:
    edit(lambda document: document["index"].update({key: document["index"][key] + 1}))
    with pytest.raises(BundleError, match="does not fit the manifest"):
        Bundle.open(folder).index()
