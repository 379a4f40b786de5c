"""What a published folder must be, and what is said of one that is not; before vLLM has taken memory."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flashhead_edge import export_bundle
from flashhead_edge.errors import BundleError, OptionError
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.publish import publish
from flashhead_edge.export.state_files import save_states
from flashhead_edge.export.states import HiddenStates
from flashhead_edge.index.build import IndexOptions
from flashhead_edge.runtimes.vllm.models import FlashHeadMixin
from flashhead_edge.runtimes.vllm.settings import read_settings

VOCAB, HIDDEN = 509, 64


@pytest.fixture(scope="module")
def original(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("settings")
    hidden = np.random.default_rng(0).normal(size=(400, HIDDEN)).astype(np.float32)
    states = HiddenStates(hidden, np.full(400, "random"), np.full(400, -1, np.int64))
    save_states(states, folder / "states.safetensors")
    options = ExportOptions(
        calibration=str(folder / "states.safetensors"), body_precision=None, index=IndexOptions(cluster_size=8)
    )
    bundle = export_bundle(tiny_folder("llama"), folder / "bundle", options)
    return publish(bundle, tiny_folder("llama"), folder / "published", copy=True).folder


@pytest.fixture
def published(original, tmp_path):
    """A copy to damage."""
    return shutil.copytree(original, tmp_path / "published")


def model_config(folder, vocab=VOCAB, hidden=HIDDEN, **settings):
    """What the plugin reads of vLLM's ``ModelConfig``."""
    config = json.loads((folder / "config.json").read_text()) | settings
    return SimpleNamespace(
        model=str(folder),
        hf_config=SimpleNamespace(**{name: value for name, value in config.items() if value is not None}),
        get_vocab_size=lambda: vocab,
        get_hidden_size=lambda: hidden,
    )


def index_of(folder):
    return folder / "flash_head_assets" / "index.safetensors"


def change(folder, **tensors):
    """Other tensors in the index, and config.json with the hash taken out."""
    path = index_of(folder)
    save_file(load_file(path) | tensors, path, metadata={"vocab_size": str(VOCAB)})
    return model_config(folder, flash_head_index_sha256=None)


def test_a_sound_folder(published):
    settings = read_settings(model_config(published, n_probes=5, flash_head_max_rows=16))
    assert (settings.index.vocab_size, settings.index.hidden_size) == (VOCAB, HIDDEN)
    assert (settings.num_probes, settings.max_rows) == (5, 16)


def test_a_relative_folder(published, monkeypatch):
    monkeypatch.chdir(published.parent)
    config = model_config(published)
    config.model = published.name
    assert read_settings(config) is not None


@pytest.mark.parametrize(("value", "enabled"), [("0", False), ("1", True)])
def test_the_environment_turns_it_off(published, monkeypatch, value, enabled):
    monkeypatch.setenv("FLASHHEAD_ENABLED", value)
    assert (read_settings(model_config(published)) is not None) is enabled


def test_another_value_is_refused(published, monkeypatch):
    monkeypatch.setenv("FLASHHEAD_ENABLED", "no")
    with pytest.raises(OptionError, match="neither 0 nor 1"):
        read_settings(model_config(published))


@pytest.mark.parametrize("name", [None, "", "..", "../other", "/etc", "a/../../b", "C:\\x", "x\\..\\y", 7])
def test_the_index_is_inside_the_folder(published, name):
    with pytest.raises(BundleError, match="flash_head_cache_dir"):
        read_settings(model_config(published, flash_head_cache_dir=name))


def test_a_missing_index(published):
    shutil.rmtree(published / "flash_head_assets")
    with pytest.raises(BundleError, match="missing") as caught:
        read_settings(model_config(published))
    assert "FLASHHEAD_ENABLED=0" in str(caught.value)


@pytest.mark.parametrize("keep_hash", [True, False])
def test_a_truncated_index(published, keep_hash):
    path = index_of(published)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"index\.safetensors"):
        read_settings(model_config(published, **({} if keep_hash else {"flash_head_index_sha256": None})))


def test_one_changed_bit(published):
    path = index_of(published)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not the file that was published"):
        read_settings(model_config(published))


def test_tensors_of_another_shape(published):
    config = change(published, centroid_bias=np.zeros(3, dtype=np.float32))
    with pytest.raises(BundleError, match="do not fit each other"):
        read_settings(config)


def test_tokens_twice(published):
    order = load_file(index_of(published))["token_order"]
    order[order == 1] = 0
    with pytest.raises(BundleError, match="every token once"):
        read_settings(change(published, token_order=order))


def test_numbers_that_are_not_finite(published):
    centroids = load_file(index_of(published))["centroids"]
    centroids[0, 0] = np.nan
    with pytest.raises(BundleError, match="not finite"):
        read_settings(change(published, centroids=centroids))


@pytest.mark.parametrize("sizes", [{"vocab": 512}, {"hidden": 128}])
def test_another_models_index(published, sizes):
    with pytest.raises(BundleError, match="another model"):
        read_settings(model_config(published, **sizes))


@pytest.mark.parametrize("key", ["n_probes", "flash_head_max_rows"])
@pytest.mark.parametrize("value", [0, -1, 1 << 40, "8", 2.5, True])
def test_numbers_out_of_range(published, key, value):
    with pytest.raises(OptionError, match=key):
        read_settings(model_config(published, **{key: value}))


class Base:
    """Stands for the standard class."""

    def __init__(self, *, vllm_config, prefix=""):
        raise AssertionError("memory would be taken here")


class Model(FlashHeadMixin, Base):
    pass


def test_a_damaged_folder_stops_before_the_model_is_made(published):
    shutil.rmtree(published / "flash_head_assets")
    with pytest.raises(BundleError, match="missing"):
        Model(vllm_config=SimpleNamespace(model_config=model_config(published)))
