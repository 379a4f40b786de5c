"""``flashhead-edge eval``: JSON and table, states from files and from text, and wrong use."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tiny_heads import head_bundle, random_head, random_index, random_states

from flashhead_edge.cli import main
from flashhead_edge.export.state_files import load_states, save_states
from flashhead_edge.export.states import HiddenStates

VOCAB, WIDTH, COUNT = 120, 32, 40
KEYS = {
    "positions",
    "containment",
    "agreement",
    "regret_mean",
    "kl_mean",
    "total_variation_mean",
    "perplexity_dense",
    "perplexity_two_stage",
    "per_domain",
    "dense_int8_agreement",
    "dense_int4_agreement",
}
DOMAIN_KEYS = {"positions", "containment", "agreement", "dense_int8_agreement", "dense_int4_agreement"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A bundle that opens every cluster, one that opens few, and states with two domains."""
    folder = tmp_path_factory.mktemp("eval")
    head = random_head(VOCAB, WIDTH, bias=True)
    index = random_index(head, 6, always=(0, 1))
    head_bundle(folder / "all", head, index, index.num_clusters)
    head_bundle(folder / "few", head, index, 2, centroids="int8", rows="float16")
    domain = np.array(["de", "code"] * (COUNT // 2))
    following = np.where(np.arange(COUNT) % 4 == 0, -1, np.arange(COUNT))
    save_states(HiddenStates(random_states(COUNT, WIDTH), domain, following), folder / "states.safetensors")
    return folder


def run(*arguments):
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def test_every_cluster_open_agrees_with_the_dense_head(files):
    result = run(files / "all", "--hidden", files / "states.safetensors", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert set(report) == KEYS
    assert (report["positions"], report["containment"], report["agreement"]) == (COUNT, 1.0, 1.0)
    assert report["kl_mean"] == pytest.approx(0, abs=1e-6)
    assert report["perplexity_dense"] == pytest.approx(report["perplexity_two_stage"], rel=1e-4)
    assert set(report["per_domain"]) == {"de", "code"}
    assert all(set(entry) == DOMAIN_KEYS for entry in report["per_domain"].values())
    assert report["per_domain"]["de"]["positions"] == COUNT // 2
    assert "comparing with the dense head" in result.stderr


def test_low_bit_dense_heads_are_really_run(files):
    report = json.loads(run(files / "few", "--hidden", files / "states.safetensors", "--json").stdout)
    assert report["agreement"] <= report["containment"] < 1
    assert report["kl_mean"] > 0
    domains = report["per_domain"].values()
    for key in ("agreement", "dense_int8_agreement", "dense_int4_agreement"):
        assert report[key] == pytest.approx(np.mean([entry[key] for entry in domains]))
    assert 0.5 < report["dense_int4_agreement"] < 1
    assert report["dense_int8_agreement"] >= report["dense_int4_agreement"]


def test_the_table_has_a_line_for_each_domain_and_all(files):
    result = run(files / "few", "--hidden", files / "states.safetensors", "--threads", 1)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert " ".join(lines[0].split()) == "domain positions containment agreement dense int8 dense int4"
    assert [line.split()[0] for line in lines[1:4]] == ["code", "de", "all"]
    assert lines[3].split()[1] == str(COUNT)
    assert any(line.startswith("perplexity") for line in lines)


def test_limit_and_no_dense(files):
    result = run(files / "all", "--hidden", files / "states.safetensors", "--limit", 9, "--no-dense", "--json")
    report = json.loads(result.stdout)
    assert report["positions"] == 9
    assert report["dense_int8_agreement"] is None
    assert report["per_domain"]["de"]["dense_int4_agreement"] is None
    assert " -" in run(files / "all", "--hidden", files / "states.safetensors", "--no-dense").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "found: neither"),
        (["--text", "a.txt", "--hidden", "b.safetensors"], "found: both"),
        (["--text", "a.txt"], "no --model"),
        (["--continue", "a.txt"], "no --model"),
        (["a.txt"], "unexpected extra argument (a.txt)"),
        (["--hidden", "b.safetensors", "--limit", "0"], "--limit is out of range"),
    ],
)
def test_wrong_use_is_explained(files, arguments, message):
    result = run(files / "all", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_states_of_another_model_are_refused(files, tmp_path):
    states = HiddenStates(random_states(3, WIDTH + 1), np.full(3, "a"), np.full(3, -1))
    save_states(states, tmp_path / "a.safetensors")
    result = run(files / "all", "--hidden", tmp_path / "a.safetensors")
    assert result.exit_code == 1
    assert "[N, 32]" in result.stderr
    assert "cannot be read" in run(files / "all", "--hidden", tmp_path / "none.safetensors").stderr


def test_following_tokens_beyond_the_vocabulary_are_refused(files, tmp_path):
    states = HiddenStates(random_states(3, WIDTH), np.full(3, "a"), np.full(3, VOCAB))
    save_states(states, tmp_path / "a.safetensors")
    result = run(files / "all", "--hidden", tmp_path / "a.safetensors")
    assert result.exit_code == 2
    assert "ids below 120" in result.stderr


@pytest.fixture
def model_and_bundle(tiny_folder, tmp_path):
    """A tiny model and a bundle of its head that opens every cluster."""
    from flashhead_edge.export.heads import read_head
    from flashhead_edge.export.sources import resolve_source

    folder = tiny_folder("llama")
    head = read_head(resolve_source(str(folder)))
    index = random_index(head, 8)
    return folder, head_bundle(tmp_path / "bundle", head, index, index.num_clusters).path


def test_text_and_continuations(model_and_bundle, tmp_path):
    model, bundle = model_and_bundle
    (tmp_path / "en.txt").write_text("the quick brown fox\n---\njumps over\nthe lazy dog\n")
    (tmp_path / "more.txt").write_text("the dog\n")
    (tmp_path / "prompts.txt").write_text("the quick\n\nthe\n")
    saved = tmp_path / "states.safetensors"
    arguments = [bundle, "--model", model, "--text", tmp_path / "en.txt", tmp_path / "more.txt"]
    arguments += ["--continue", tmp_path / "prompts.txt", "--new-tokens", 5, "--save-hidden", saved, "--json"]
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert set(report["per_domain"]) == {"en", "more", "continuation"}
    assert report["agreement"] == 1.0
    assert 0 < report["per_domain"]["continuation"]["positions"] <= 10
    assert report["perplexity_dense"] > 1
    states = load_states(saved)
    assert len(states) == report["positions"]
    assert (states.next_token[states.domain == "en"] == -1).sum() == 2  # two passages

    again = json.loads(run(bundle, "--hidden", saved, "--json").stdout)
    assert again["positions"] == report["positions"]
    assert again["perplexity_dense"] == pytest.approx(report["perplexity_dense"], rel=1e-5)


def test_another_model_is_refused(model_and_bundle, files):
    model, _ = model_and_bundle
    result = run(files / "all", "--model", model, "--hidden", files / "states.safetensors")
    assert result.exit_code == 2
    assert "is not the model" in result.stderr


def test_another_model_of_the_same_shape_is_refused(model_and_bundle, tmp_path):
    model, bundle = model_and_bundle
    other = shutil.copytree(model, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if "embed_tokens" in name or "lm_head" in name)
    weights[name] = weights[name].roll(1, dims=0).contiguous()
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    states = tmp_path / "states.safetensors"
    hidden = random_states(8, weights[name].shape[1])
    save_states(HiddenStates(hidden, np.full(8, "a"), np.full(8, -1)), states)
    result = run(bundle, "--model", other, "--hidden", states)
    assert result.exit_code == 2
    assert "rows that differ" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe", "cannot be read as UTF-8"), (b" \n---\n\n", "holds no text")],
)
def test_unusable_text_is_explained(model_and_bundle, tmp_path, content, message):
    model, bundle = model_and_bundle
    (tmp_path / "a.txt").write_bytes(content)
    result = run(bundle, "--model", model, "--text", tmp_path / "a.txt")
    assert result.exit_code == 1
    assert message in result.stderr


def test_two_files_of_one_name_are_refused(model_and_bundle, tmp_path):
    model, bundle = model_and_bundle
    result = run(bundle, "--model", model, "--text", tmp_path / "a.txt", tmp_path / "other" / "a.txt")
    assert result.exit_code == 1
    assert "Two text files have the same name" in result.stderr
