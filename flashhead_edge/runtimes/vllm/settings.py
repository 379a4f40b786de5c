"""What a published folder says of its two-stage head: keys of ``config.json`` and files beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from flashhead_edge.bundle import hash_file
from flashhead_edge.errors import BundleError, OptionError
from flashhead_edge.index.head_index import HeadIndex
from flashhead_edge.runtimes.vllm.dense_path import DENSE_PATH

#: Environment variable that turns the two-stage head off with 0.
ENABLED = "FLASHHEAD_ENABLED"
#: Why the dense head is used then.
DISABLED = f"{ENABLED}=0"
CACHE_DIR_KEY = "flash_head_cache_dir"
PROBES_KEY = "n_probes"
SPECIAL_IDS_KEY = "flash_head_special_token_ids"
MAX_ROWS_KEY = "flash_head_max_rows"
INDEX_FILE = "index.safetensors"
#: SHA-256 of the index, in hexadecimal; folders of other makers have none.
SHA256_KEY = "flash_head_index_sha256"


@dataclass(frozen=True)
class HeadSettings:
    """How a model is served.

    Attributes:
        index: The head's index.
        num_probes: P.
        max_rows: Rows of a step above which the dense head is used, or None for what was measured.
        scale_centroids: Whether centroids have no scale before they are compared with rows.
    """

    index: HeadIndex
    num_probes: int
    max_rows: int | None
    scale_centroids: bool = False


def read_settings(model_config: Any) -> HeadSettings | None:
    """Read and check the files of a published folder.

    Args:
        model_config: vLLM's ``ModelConfig``.

    Returns:
        The settings, or None where the head is turned off.

    Raises:
        BundleError: The index is missing, damaged, of another model, or outside the folder.
        OptionError: A number of ``config.json`` or the environment variable is wrong.
    """
    enabled = os.environ.get(ENABLED, "1")
    if enabled not in ("0", "1"):
        raise OptionError(f"{ENABLED} is neither 0 nor 1.", found=ascii(enabled[:40]))
    if enabled == "0":
        DENSE_PATH.take(DISABLED)
        return None
    config = model_config.hf_config
    folder = _model_folder(model_config)
    index, is_ours = _read_index(_inside(folder, getattr(config, CACHE_DIR_KEY, None)), config)
    _check_model(index, model_config)
    num_probes = _number(config, PROBES_KEY, max(1, index.num_clusters // 16), index.num_clusters)
    max_rows = _number(config, MAX_ROWS_KEY, 0, 1 << 20) or None
    return HeadSettings(index, num_probes, max_rows, scale_centroids=not is_ours)


def _model_folder(model_config: Any) -> Path:
    """The folder with the model's files; those of a Hub model are in the cache."""
    folder = Path(model_config.model)
    if folder.is_dir():
        return folder
    import huggingface_hub

    cache_dir = getattr(model_config.hf_config, CACHE_DIR_KEY, None)
    return Path(
        huggingface_hub.snapshot_download(
            model_config.model, revision=model_config.revision, allow_patterns=["config.json", f"{cache_dir}/*"]
        )
    )


def _inside(folder: Path, name: object) -> Path:
    """The sub-folder with the index.

    Files of the Hub's cache are links out of their folder, so names are judged and not where they lead.
    """
    if not isinstance(name, str) or not name:
        raise BundleError(
            f"config.json does not say where the index is: {CACHE_DIR_KEY} is missing.",
            hint="make the folder with: flashhead-edge publish BUNDLE --model FOLDER -o NEW",
        )
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts or "\\" in name or "\0" in name or ":" in name:
        raise BundleError(f"{CACHE_DIR_KEY} names a folder outside the model's.", found=ascii(name[:80]))
    return folder / inside


def _read_index(folder: Path, config: Any) -> tuple[HeadIndex, bool]:
    """The index, and whether it is ours: not of a folder that was published for the reference plugin."""
    from flashhead_edge.index.storage import load_index
    from flashhead_edge.runtimes.vllm.reference_cache import CACHE_FILE, load_reference_cache

    sha256 = getattr(config, SHA256_KEY, None)
    if (folder / INDEX_FILE).is_file():
        _check_hash(folder / INDEX_FILE, sha256)
        return load_index(folder / INDEX_FILE), True
    if (folder / CACHE_FILE).is_file() and sha256 is None:
        return load_reference_cache(folder / CACHE_FILE, _special_ids(config)), False
    raise BundleError(
        "The index is missing from the model's folder.",
        found=f"neither {INDEX_FILE} nor {CACHE_FILE} in {folder}",
        hint="copy the folder again, or serve it without the two-stage head: FLASHHEAD_ENABLED=0",
    )


def _special_ids(config: Any) -> list[int]:
    """Ids that a folder for the reference plugin wants scored at every step: a number, a list, or nothing."""
    value = getattr(config, SPECIAL_IDS_KEY, None)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise OptionError(f"{SPECIAL_IDS_KEY} in config.json holds no ids.", found=ascii(value)[:80])
    return ids


def _check_hash(path: Path, expected: str | None) -> None:
    """An index that was changed, or put there from another model, need not look damaged."""
    if expected is not None and (found := hash_file(path).sha256) != expected:
        raise BundleError(
            f"{path.name} is not the file that was published with this config.json.",
            found=f"sha256 {found[:16]}...",
            expected=f"sha256 {ascii(expected)[1:17]}...",
            hint="copy the folder again, or publish the model again",
        )


def _check_model(index: HeadIndex, model_config: Any) -> None:
    """The index must be of this model's vocabulary and width."""
    expected = (int(model_config.get_vocab_size()), int(model_config.get_hidden_size()))
    found = (index.vocab_size, index.hidden_size)
    if found != expected:
        raise BundleError("The index is of another model (V, H).", found=found, expected=expected)
    arrays = (index.centroids, index.centroid_bias, index.selection_offset)
    if not all(np.isfinite(array).all() for array in arrays):
        raise BundleError("The index holds numbers that are not finite.", hint="publish the model again")


def _number(config: Any, key: str, default: int, most: int) -> int:
    """A whole number of config.json."""
    value = getattr(config, key, None)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise OptionError(f"{key} in config.json is out of range.", found=value, expected=f"1 to {most}")
    return value
