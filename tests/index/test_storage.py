"""``index.safetensors``: what is written is read, and nothing else is taken for an index."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from flashhead_edge.errors import BundleError
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.index.storage import load_index, save_index
from tests.tiny_heads import random_head, random_index


def index_of(*, bias: bool = False, rank: int | None = None) -> HeadIndex:
    return random_index(random_head(50, 16, bias=bias), 4, always=(0, 7), rank=rank)


def tensors_of(index: HeadIndex) -> dict[str, np.ndarray]:
    arrays = {field.name: getattr(index, field.name) for field in fields(index) if field.name != "vocab_size"}
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.mark.parametrize(("bias", "rank"), [(False, None), (True, None), (False, 5)])
def test_what_is_written_is_read(tmp_path: Path, bias: bool, rank: int | None) -> None:
    index = index_of(bias=bias, rank=rank)
    save_index(index, tmp_path / "index.safetensors")
    loaded = load_index(tmp_path / "index.safetensors")
    for field in fields(HeadIndex):
        expected, found = getattr(index, field.name), getattr(loaded, field.name)
        np.testing.assert_array_equal(found, expected)
        if isinstance(expected, np.ndarray):
            assert found.dtype == expected.dtype


def test_views_are_written_as_they_look(tmp_path: Path) -> None:
    index = index_of()
    turned = replace(index, centroids=np.asfortranarray(index.centroids), token_order=index.token_order[::-1][::-1])
    save_index(turned, tmp_path / "i")
    np.testing.assert_array_equal(load_index(tmp_path / "i").centroids, index.centroids)


def test_the_same_index_gives_the_same_bytes(tmp_path: Path) -> None:
    save_index(index_of(), tmp_path / "a")
    save_index(index_of(), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_projection_of_another_width_is_refused(tmp_path: Path) -> None:
    save_index(replace(index_of(rank=5), projection=np.eye(9, 5, dtype=np.float32)), tmp_path / "i")
    with pytest.raises(BundleError, match="do not fit each other"):
        load_index(tmp_path / "i")


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 16, None])
def test_other_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "i").write_bytes(content)
    with pytest.raises(BundleError, match="i cannot be read"):
        load_index(tmp_path / "i")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    save_index(index_of(), tmp_path / "i")
    (tmp_path / "i").write_bytes((tmp_path / "i").read_bytes()[:-8])
    with pytest.raises(BundleError, match="cannot be read"):
        load_index(tmp_path / "i")


@pytest.mark.parametrize("name", ["token_order", "centroids", "centroid_bias", "selection_offset", "cluster_variance"])
@pytest.mark.parametrize("damage", ["missing", "another type", "another rank"])
def test_each_tensor_must_be_there_and_right(tmp_path: Path, name: str, damage: str) -> None:
    tensors = tensors_of(index_of())
    array = tensors.pop(name)
    if damage == "another type":
        tensors[name] = array.astype(np.float64)
    elif damage == "another rank":
        tensors[name] = array[None]
    save_file(tensors, tmp_path / "i", metadata={"vocab_size": "50"})
    with pytest.raises(BundleError, match="holds no index") as caught:
        load_index(tmp_path / "i")
    assert name in caught.value.expected


@pytest.mark.parametrize("name", ["centroids", "selection_offset", "cluster_variance", "centroid_bias"])
@pytest.mark.parametrize("length", [1, 12, 14, 40])
def test_tensors_must_fit_each_other(tmp_path: Path, name: str, length: int) -> None:
    tensors = tensors_of(index_of(bias=True))
    tensors[name] = np.resize(tensors[name], (length, *tensors[name].shape[1:]))
    save_file(tensors, tmp_path / "i", metadata={"vocab_size": "50"})
    with pytest.raises(BundleError, match="do not fit"):
        load_index(tmp_path / "i")


def doubled(order: np.ndarray) -> None:
    order[order == 3] = 4


def missing(order: np.ndarray) -> None:
    order[order == 3] = -1


def beyond(order: np.ndarray) -> None:
    order[order == 3] = 50


@pytest.mark.parametrize("damage", [doubled, missing, beyond], ids=lambda damage: damage.__name__)
def test_every_token_must_be_there_once(tmp_path: Path, damage: Any) -> None:
    index = index_of()
    damage(index.token_order)
    save_index(index, tmp_path / "i")
    with pytest.raises(BundleError, match="every token once"):
        load_index(tmp_path / "i")


@pytest.mark.parametrize(
    "metadata", [None, {}, {"vocab_size": "many"}, {"vocab_size": "-1"}, {"vocab_size": "9" * 5000}]
)
def test_the_vocabulary_size_must_be_said(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file(tensors_of(index_of()), tmp_path / "i", metadata=metadata)
    with pytest.raises(BundleError, match="vocabulary size"):
        load_index(tmp_path / "i")


@pytest.mark.parametrize("size", ["0", "49", "51", "999999999"])
def test_the_vocabulary_size_must_be_right(tmp_path: Path, size: str) -> None:
    save_file(tensors_of(index_of()), tmp_path / "i", metadata={"vocab_size": size})
    with pytest.raises(BundleError, match="every token once"):
        load_index(tmp_path / "i")
