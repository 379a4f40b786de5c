"""The folder that vLLM would be given; vLLM itself is not run here."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from flashhead_edge import export_bundle
from flashhead_edge.cli import main
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.state_files import save_states
from flashhead_edge.export.states import HiddenStates
from flashhead_edge.index.build import IndexOptions


@pytest.fixture(scope="module")
def bundle(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("publish")
    hidden = np.random.default_rng(0).normal(size=(400, 64)).astype(np.float32)
    save_states(HiddenStates(hidden, np.full(400, "random"), np.full(400, -1, np.int64)), folder / "states.safetensors")
    options = ExportOptions(
        calibration=str(folder / "states.safetensors"), body_precision=None, index=IndexOptions(cluster_size=8)
    )
    return export_bundle(tiny_folder("llama"), folder / "bundle", options)


def publish(*arguments):
    return CliRunner().invoke(main, ["publish", *map(str, arguments)])


def test_folder(bundle, tiny_folder, tmp_path):
    model, output = tiny_folder("llama"), tmp_path / "served"
    result = publish(bundle.path, "--model", model, "-o", output, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"folder": str(output), "architecture": "FlashHeadLlamaForCausalLM"}
    config, original = (json.loads((folder / "config.json").read_text()) for folder in (output, model))
    assert config["architectures"] == ["FlashHeadLlamaForCausalLM"]
    assert config["model_type"] == original["model_type"]
    assert config["n_probes"] == bundle.manifest.index.num_probes
    assert (output / "model.safetensors").samefile(model / "model.safetensors")
    assert (output / "README.md").is_file()
    assets = output / config["flash_head_cache_dir"]
    assert (assets / "index.safetensors").read_bytes() == (bundle.path / "index.safetensors").read_bytes()
    assert load_file(assets / "clustering_cache.safetensors")


def test_another_model_is_refused(bundle, tiny_folder, tmp_path):
    result = publish(bundle.path, "--model", tiny_folder("llama", hidden_size=32), "-o", tmp_path / "served")
    assert result.exit_code != 0
    assert "not the one of the bundle" in result.output
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_model_is_refused(bundle, tmp_path):
    result = publish(bundle.path, "--model", tmp_path, "-o", tmp_path / "served")
    assert result.exit_code != 0
    assert "config.json" in result.output
