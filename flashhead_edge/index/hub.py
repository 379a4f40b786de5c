"""An index as folders and repositories of the Hugging Face Hub."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from flashhead_edge.errors import BundleError, OptionalDependencyError
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.index.storage import load_index, save_index

#: Name of the file in a folder, as in a bundle.
INDEX_FILE = "index.safetensors"
_CONFIG = "config.json"
#: Key of a served model's config.json that names the sub-folder with the index.
_SUBFOLDER_KEY = "flash_head_cache_dir"


def save_to_folder(index: HeadIndex, folder: Path) -> Path:
    """Write an index into a folder, which is made where there is none.

    Args:
        index: The index.
        folder: Where to.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{INDEX_FILE}.partial-{os.getpid()}"
    try:
        save_index(index, partial)
        return partial.replace(folder / INDEX_FILE)
    finally:
        partial.unlink(missing_ok=True)


def load_from(source: str | Path, *, subfolder: str | None = None, **download: Any) -> HeadIndex:
    """Read an index from a folder or from a repository of the Hub.

    Args:
        source: A folder, or ``org/name``.
        subfolder: Where in it the index is; None looks where config.json says, else at its top.
        **download: For ``huggingface_hub.hf_hub_download``: revision, token, cache_dir, local_files_only...

    Raises:
        BundleError: There is no index, or it is damaged.
        OptionalDependencyError: The Hub is asked for without huggingface_hub.
    """
    folder = Path(source)
    is_folder = folder.is_dir()

    def fetch(name: str) -> Path | None:
        return _local(folder, name) if is_folder else _downloaded(str(source), name, download)

    if subfolder is None:
        config = fetch(_CONFIG)
        subfolder = "" if config is None else _subfolder_of(config)
    name = f"{subfolder.strip('/')}/{INDEX_FILE}" if subfolder else INDEX_FILE
    path = fetch(name)
    if path is None:
        raise BundleError(
            "There is no index.",
            found=f"no {name} in {source}",
            hint="write one with HeadIndex.save_pretrained, or name its folder with subfolder=",
        )
    return load_index(path)


def push(
    index: HeadIndex,
    repo_id: str,
    *,
    subfolder: str | None = None,
    commit_message: str = "Push index using flashhead_edge",
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
) -> str:
    """Upload an index; the repository is made where there is none.

    Args:
        index: The index.
        repo_id: ``org/name``.
        subfolder: Where in the repository to put it, or None for its top.
        commit_message: Message of the commit.
        private: Whether a repository made here is private; None takes the account's default.
        token: Access token, or None for the one that is logged in.
        branch: Branch to commit to, or None for the main one.
        create_pr: Open a pull request instead.

    Returns:
        URL of the commit.

    Raises:
        OptionalDependencyError: huggingface_hub is not installed.
    """
    hub = _hub()
    api = hub.HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        path = save_to_folder(index, Path(folder))
        done = api.upload_file(
            path_or_fileobj=path,
            path_in_repo=f"{subfolder.strip('/')}/{INDEX_FILE}" if subfolder else INDEX_FILE,
            repo_id=repo_id,
            commit_message=commit_message,
            revision=branch,
            create_pr=create_pr,
        )
    return str(done.commit_url)


def _subfolder_of(config: Path) -> str:
    try:
        value = json.loads(config.read_text(encoding="utf-8")).get(_SUBFOLDER_KEY, "")
    except (OSError, ValueError, AttributeError):
        return ""  # of another kind of folder: the index is at its top, or missed
    return value if isinstance(value, str) and ".." not in Path(value).parts and not Path(value).is_absolute() else ""


def _local(folder: Path, name: str) -> Path | None:
    path = folder / name
    return path if path.is_file() else None


def _downloaded(repo_id: str, name: str, options: dict[str, Any]) -> Path | None:
    """A file of a repository, or None where the repository has none of that name."""
    hub = _hub()
    from huggingface_hub import errors

    try:
        return Path(hub.hf_hub_download(repo_id, name, **options))
    except errors.LocalEntryNotFoundError as error:
        raise BundleError(
            f"{name} of {repo_id} is neither here nor can it be downloaded.",
            found=str(error).splitlines()[0],
            hint="check the network, or that HF_HUB_OFFLINE is not set",
        ) from error
    except errors.EntryNotFoundError:
        return None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise BundleError(
            "There is neither such a folder nor such a repository.",
            found=repo_id,
            expected="a folder, or org/name on the Hub",
        ) from error


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise OptionalDependencyError("huggingface_hub", "export", "The Hugging Face Hub") from error
    return huggingface_hub
