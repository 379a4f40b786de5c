"""Hidden states on disk: what is written is read back, and damage is named."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from flashhead_edge.errors import CalibrationError
from flashhead_edge.export.state_files import load_states, save_states
from flashhead_edge.export.states import HiddenStates


@pytest.fixture
def states():
    hidden = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    domain = np.array(["de", "code", "de", "日本", "code"])
    return HiddenStates(hidden, domain, np.array([3, -1, 0, 7, -1]))


def test_states_come_back(tmp_path, states):
    save_states(states, tmp_path / "a.safetensors")
    back = load_states(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(back.hidden, states.hidden)
    np.testing.assert_array_equal(back.next_token, states.next_token)
    assert back.domain.tolist() == states.domain.tolist()
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_states_alone_suffice(tmp_path):
    save_file({"hidden": np.ones((3, 2), np.float16)}, tmp_path / "chat.safetensors")
    back = load_states(tmp_path / "chat.safetensors")
    assert back.hidden.dtype == np.float32
    assert back.domain.tolist() == ["chat"] * 3
    assert back.next_token.tolist() == [-1] * 3


HIDDEN = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"states": HIDDEN}, {}, "holds no hidden states"),
        ({"hidden": HIDDEN.astype(np.int32)}, {}, "int32"),
        ({"hidden": HIDDEN[None]}, {}, r"\[1, 3, 2\]"),
        ({"hidden": HIDDEN[:0]}, {}, r"\[0, 2\]"),
        ({"hidden": HIDDEN * np.float32("nan")}, {}, "3 of 3 states"),
        ({"hidden": HIDDEN, "domain": np.zeros(2, np.int64)}, {}, "'domain' does not fit"),
        ({"hidden": HIDDEN, "domain": np.zeros(3, np.float32)}, {}, "'domain' does not fit"),
        ({"hidden": HIDDEN, "domain": np.array([0, 1, 2])}, {"domains": '["a", "b"]'}, "2 names"),
        ({"hidden": HIDDEN, "domain": np.array([0, -1, 0])}, {"domains": '["a"]'}, "domains -1 to 0"),
        ({"hidden": HIDDEN, "domain": np.zeros(3, np.uint8)}, {}, "0 names"),
        ({"hidden": HIDDEN, "domain": np.zeros(3, np.uint8)}, {"domains": "[1]"}, "no list of names"),
        ({"hidden": HIDDEN, "domain": np.zeros(3, np.uint8)}, {"domains": "{"}, "no list of names"),
        ({"hidden": HIDDEN, "next_token": np.zeros(3, np.int32)}, {}, "'next_token' does not fit"),
        ({"hidden": HIDDEN, "next_token": np.full(3, -2)}, {}, "'next_token' does not fit"),
    ],
)
def test_misshapen_files_are_explained(tmp_path, tensors, metadata, message):
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CalibrationError, match=message):
        load_states(path)


def test_missing_and_damaged_files(tmp_path, states):
    path = tmp_path / "a.safetensors"
    with pytest.raises(CalibrationError, match="no file"):
        load_states(path)
    save_states(states, path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CalibrationError, match=r"a\.safetensors cannot be read"):
        load_states(path)
