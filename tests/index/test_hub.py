"""An index as folders and repositories of the Hub; of the Hub's client only the network is replaced."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest

from flashhead_edge import HeadIndex
from flashhead_edge.errors import BundleError
from flashhead_edge.index.hub import INDEX_FILE
from flashhead_edge.index.storage import load_index
from tests.tiny_heads import random_head, random_index


@pytest.fixture
def index():
    return random_index(random_head(60, 32), 8, always=(1, 5))


def assert_same(found, expected):
    assert found.vocab_size == expected.vocab_size
    for name in ("token_order", "centroids", "centroid_bias", "selection_offset", "cluster_variance"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_folder_and_back(index, tmp_path):
    index.save_pretrained(tmp_path / "new" / "folder")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [INDEX_FILE]
    assert_same(HeadIndex.from_pretrained(tmp_path / "new" / "folder"), index)
    assert_same(HeadIndex.from_pretrained(tmp_path / "new", subfolder="folder"), index)


def test_a_served_models_folder(index, tmp_path):
    index.save_pretrained(tmp_path / "flash_head_assets")
    (tmp_path / "config.json").write_text(json.dumps({"flash_head_cache_dir": "flash_head_assets"}))
    assert_same(HeadIndex.from_pretrained(str(tmp_path)), index)


def test_no_path_leads_out_of_the_folder(index, tmp_path):
    index.save_pretrained(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"flash_head_cache_dir": ".."}))
    with pytest.raises(BundleError, match="no index"):
        HeadIndex.from_pretrained(tmp_path / "model")


def test_an_empty_folder_has_none(tmp_path):
    with pytest.raises(BundleError, match="no index"):
        HeadIndex.from_pretrained(tmp_path)


class Repository:
    """A repository in a folder, behind the Hub's own functions."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.asked = folder, []
        monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", self.create_repo)
        monkeypatch.setattr(huggingface_hub.HfApi, "upload_file", self.upload_file)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        self.asked.append((repo_id, private))
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, commit_message, revision, create_pr):
        (self.folder / path_in_repo).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path_in_repo).write_bytes(Path(path_or_fileobj).read_bytes())
        self.asked.append((repo_id, commit_message, revision, create_pr))
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")

    def download(self, repo_id, name, **options):
        self.asked.append((repo_id, name, options))
        if not (self.folder / name).is_file():
            raise (
                huggingface_hub.errors.LocalEntryNotFoundError(name)
                if options.get("local_files_only")
                else huggingface_hub.errors.EntryNotFoundError(name)
            )
        return str(self.folder / name)


def test_the_hub_and_back(index, tmp_path, monkeypatch):
    repository = Repository(tmp_path, monkeypatch)
    url = index.push_to_hub("me/index", private=True, commit_message="An index", branch="next", create_pr=True)
    assert url == "https://huggingface.co/me/index/commit/1"
    assert repository.asked == [("me/index", True), ("me/index", "An index", "next", True)]
    assert_same(HeadIndex.from_pretrained("me/index", revision="next"), index)
    assert repository.asked[-1] == ("me/index", INDEX_FILE, {"revision": "next"})


def test_saving_can_upload_too(index, tmp_path, monkeypatch):
    repository = Repository(tmp_path / "hub", monkeypatch)
    index.save_pretrained(tmp_path / "mine", push_to_hub=True, subfolder="flash_head_assets")
    assert repository.asked[1][0] == "me/mine"
    assert_same(load_index(tmp_path / "hub" / "flash_head_assets" / INDEX_FILE), index)


def test_a_repository_without_an_index(tmp_path, monkeypatch):
    Repository(tmp_path, monkeypatch)
    with pytest.raises(BundleError, match="no index"):
        HeadIndex.from_pretrained("me/other")
    with pytest.raises(BundleError, match="neither here nor"):
        HeadIndex.from_pretrained("me/other", local_files_only=True)


def test_a_name_that_is_none(tmp_path):
    with pytest.raises(BundleError, match="neither such a folder"):
        HeadIndex.from_pretrained(str(tmp_path / "missing folder"))
