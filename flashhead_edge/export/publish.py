"""A folder that vLLM serves: the model's own files, its head's index, and a model card."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import SourceError, UnsupportedModelError, did_you_mean
from flashhead_edge.files import new_folder
from flashhead_edge.manifest import Manifest
from flashhead_edge.runtimes.vllm.architectures import PREFIX, STANDARD_ARCHITECTURES
from flashhead_edge.runtimes.vllm.reference_cache import CACHE_FILE, save_reference_cache
from flashhead_edge.runtimes.vllm.settings import SHA256_KEY

#: Sub-folder with the index.
ASSETS = "flash_head_assets"
_CONFIG = "config.json"
_CARD = "README.md"
#: What is taken of the model; nothing that runs code when it is read.
_WANTED = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "LICENSE*")


@dataclass(frozen=True)
class Published:
    """What was written.

    Attributes:
        folder: The folder.
        architecture: Its architecture, such as "FlashHeadLlamaForCausalLM".
    """

    folder: Path
    architecture: str


def publish(bundle: Bundle, model: Path, output: Path, *, copy: bool = False, force: bool = False) -> Published:
    """Write a folder that vLLM with our plugin serves.

    Args:
        bundle: What was exported from the model.
        model: The model's folder, with config.json and weights in safetensors.
        output: Folder to write.
        copy: Copy the weights; otherwise they are hard-linked where the file system can.
        force: Replace the output if it exists.

    Raises:
        SourceError: The model's folder is incomplete, or its sizes are not the bundle's.
        UnsupportedModelError: The plugin does not know its architecture.
    """
    config = _read_config(model)
    architecture = _architecture(config)
    _check_sizes(config, bundle.manifest)
    manifest = bundle.manifest
    names = {path.name for pattern in _WANTED for path in model.glob(pattern) if path.is_file()} - {_CONFIG}
    if not any(name.endswith(".safetensors") for name in names):
        raise SourceError(f"{model} has no weights.", expected="*.safetensors", hint="name the model's own folder")
    with new_folder(output, force=force) as folder:
        for name in sorted(names):
            _place(model / name, folder / name, copy=copy)
        assets = folder / ASSETS
        assets.mkdir()
        shutil.copyfile(bundle.file(layout.INDEX), assets / layout.INDEX)
        save_reference_cache(bundle.index(), bundle.rows().floats(), assets / CACHE_FILE)
        config = {name: value for name, value in config.items() if name != "auto_map"} | {
            "architectures": [architecture],
            "flash_head_cache_dir": ASSETS,
            SHA256_KEY: manifest.files[layout.INDEX].sha256,
            "n_probes": manifest.index.num_probes,
            "flash_head_special_token_ids": manifest.always_scored_ids,
        }
        (folder / _CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / _CARD).write_text(model_card(manifest, architecture), encoding="utf-8")
    return Published(output, architecture)


def model_card(manifest: Manifest, architecture: str) -> str:
    """The text of the model card; its figures are those that the export measured.

    Args:
        manifest: The bundle's manifest.
        architecture: As in config.json.
    """
    index = manifest.index
    quality, calibration = index.quality, index.calibration
    return f"""---
library_name: vllm
tags: [flashhead-edge]
---

# {manifest.source.name} with a two-stage head

The weights are the original ones. The folder `{ASSETS}` holds an index of the {manifest.vocab_size:,} vocabulary rows:
a step scores {index.rows_scored:,} rows instead of all ({index.reduction:.1f} x fewer).

    pip install "flashhead-edge[vllm]"
    vllm serve FOLDER

Without the plugin vLLM refuses the architecture `{architecture}`; with `FLASHHEAD_ENABLED=0` it uses the dense head.

| measured by the export, on {quality.positions:,} held-out positions | |
| --- | ---: |
| agreement with the dense head's token | {quality.agreement:.4f} |
| containment | {quality.containment:.4f} |
| clusters, cluster size, probes | {index.num_clusters:,}, {index.cluster_size}, {index.num_probes} |
| calibration | {calibration.source}, {calibration.states:,} states |

Logits of opened clusters are exact, those of closed ones are estimates below the best exact logit. Speed on a GPU: not
measured. Made by {manifest.created_by}; the licence is that of the original model.
"""


def _read_config(model: Path) -> dict[str, Any]:
    try:
        config = json.loads((model / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{model} is not a model's folder.", found=error, expected=f"a folder with {_CONFIG} and *.safetensors"
        ) from error
    if not isinstance(config, dict):
        raise SourceError(f"{model / _CONFIG} holds no object.", found=type(config).__name__)
    return config


def _architecture(config: dict[str, Any]) -> str:
    """The name that our plugin registers."""
    names = config.get("architectures")
    standard = str(names[0]) if isinstance(names, list) and names else ""
    if standard.removeprefix(PREFIX) not in STANDARD_ARCHITECTURES:
        raise UnsupportedModelError(
            "The plugin of vLLM does not know the model's architecture.",
            found=standard or "none in config.json",
            hint=did_you_mean(standard, STANDARD_ARCHITECTURES),
        )
    return PREFIX + standard.removeprefix(PREFIX)


def _check_sizes(config: dict[str, Any], manifest: Manifest) -> None:
    text = config.get("text_config")
    sizes = {**(text if isinstance(text, dict) else {}), **config}
    found = (sizes.get("vocab_size"), sizes.get("hidden_size"))
    expected = (manifest.vocab_size, manifest.hidden_size)
    if found != expected:
        raise SourceError(
            "The model is not the one of the bundle (V, H).", found=found, expected=expected, hint="name its own folder"
        )


def _place(source: Path, target: Path, *, copy: bool) -> None:
    """Link, or copy where that cannot be (another file system) or is not wanted."""
    if not copy:
        try:
            os.link(source.resolve(), target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
        else:
            return
    shutil.copyfile(source, target)
