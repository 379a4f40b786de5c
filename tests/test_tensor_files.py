from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from flashhead_edge.errors import BundleError
from flashhead_edge.tensor_files import map_tensors, write_tensors

TENSORS = {
    "bytes": np.arange(7, dtype=np.uint8),
    "numbers": np.arange(6, dtype=np.int32).reshape(2, 3),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "short": np.array([500], np.uint16),
    "nothing": np.empty((0, 3), np.uint32),
}


def test_what_is_written_is_mapped(tmp_path):
    write_tensors(tmp_path / "file", TENSORS, {"name": "größe"})
    tensors, metadata = map_tensors(tmp_path / "file")
    assert metadata == {"name": "größe"}
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    for name, array in TENSORS.items():
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)


def test_types_that_bundles_do_not_have_are_left_out(tmp_path):
    save_file({"wide": np.zeros(2, np.int64), "short": np.zeros(2, np.uint8)}, tmp_path / "file")
    tensors, metadata = map_tensors(tmp_path / "file")
    assert list(tensors) == ["short"]
    assert metadata == {}


def test_changes_stay_in_memory(tmp_path):
    write_tensors(tmp_path / "file", TENSORS)
    before = (tmp_path / "file").read_bytes()
    map_tensors(tmp_path / "file")[0]["bytes"][:] = 0
    assert (tmp_path / "file").read_bytes() == before


def test_files_may_be_read_by_whom_others_may(tmp_path):
    write_tensors(tmp_path / "file", TENSORS)
    (tmp_path / "other").write_text("")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"no tensors at all")])
def test_a_missing_or_damaged_file_is_an_error(tmp_path, damage):
    write_tensors(tmp_path / "file", TENSORS)
    damage(tmp_path / "file")
    with pytest.raises(BundleError, match="cannot be read"):
        map_tensors(tmp_path / "file")
