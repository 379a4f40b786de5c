"""Tensors beside their graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from flashhead_edge.errors import ExportError
from flashhead_edge.export.tensor_ref import ALIGNMENT_BYTES, DataFile, TensorRef


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int64", "uint8", "int8", "bool"])
def test_onnx_reads_back_what_was_written(tmp_path: Path, dtype: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    with DataFile(tmp_path / "w.data") as data:
        data.append("first", np.zeros(3, np.uint8))
        ref = data.append("rows", values[:, ::-1])
    assert ref.offset == ALIGNMENT_BYTES
    proto = ref.to_proto()
    onnx.external_data_helper.load_external_data_for_tensor(proto, str(tmp_path))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(proto), values[:, ::-1])
    np.testing.assert_array_equal(ref.read(tmp_path), values[:, ::-1])


def test_chunks_equal_the_whole(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float16)
    with DataFile(tmp_path / "w.data") as data:
        ref = data.append_chunks("rows", (values[i : i + 3] for i in range(0, 7, 3)), dtype="float16", shape=(7, 5))
    np.testing.assert_array_equal(ref.read(tmp_path), values)


def test_big_endian_arrays_are_written_little_endian(tmp_path: Path) -> None:
    values = np.arange(4, dtype=">i4")
    with DataFile(tmp_path / "w.data") as data:
        ref = data.append("v", values)
    np.testing.assert_array_equal(ref.read(tmp_path), [0, 1, 2, 3])


def test_packed_int4(tmp_path: Path) -> None:
    with DataFile(tmp_path / "w.data") as data:
        ref = data.append("q", np.array([0x21, 0xF3], np.uint8), dtype="int4", shape=(2, 2))
    proto = ref.to_proto()
    onnx.external_data_helper.load_external_data_for_tensor(proto, str(tmp_path))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(proto).astype(int), [[1, 2], [3, -1]])
    assert ref.read(tmp_path).tolist() == [0x21, 0xF3]


@pytest.mark.parametrize(
    ("array", "shape", "message"),
    [
        (np.zeros(2), None, "already holds"),
        (np.zeros(2, np.uint8), (3,), "do not fill"),
    ],
)
def test_mistakes_are_refused_and_leave_no_file(
    tmp_path: Path, array: np.ndarray, shape: tuple[int, ...] | None, message: str
) -> None:
    path = tmp_path / "w.data"

    def write() -> None:
        with DataFile(path) as data:
            data.append("w" if shape else "v", array, shape=shape)
            data.append("v", array)

    with pytest.raises(ExportError, match=message):
        write()
    assert not path.exists()


def test_a_piece_of_another_type_is_refused(tmp_path: Path) -> None:
    with DataFile(tmp_path / "w.data") as data, pytest.raises(ExportError, match="wrong type"):
        data.append_chunks("v", [np.zeros(2)], dtype="float32", shape=(2,))


def test_refs_keep_order_and_can_be_renamed(tmp_path: Path) -> None:
    with DataFile(tmp_path / "w.data") as data:
        data.append("b", np.zeros(2))
        data.append("a", np.zeros(()))
    assert [ref.name for ref in data.refs] == ["b", "a"]
    assert data.refs[0].renamed("c") == TensorRef("c", "float64", (2,), "w.data", 0, 16)
