"""Fixtures for every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashhead_edge import Bundle


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny model's folder by kind and options, as ``save_tiny_model`` takes them; saved once, not to be changed."""
    folders: dict[Any, Path] = {}

    def folder_of(kind: str, **options: Any) -> Path:
        from tiny_models import save_tiny_model

        key = (kind, *sorted((name, str(value)) for name, value in options.items()))
        if key not in folders:
            folders[key] = save_tiny_model(kind, tmp_path_factory.mktemp(kind) / f"tiny-{kind}", **options)
        return folders[key]

    return folder_of


@pytest.fixture(scope="session")
def whole_bundle(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """A bundle with a body, of a tied or an untied model, with centroids of full or lower rank."""
    bundles: dict[tuple[bool, int | None], Bundle] = {}

    def bundle_of(*, tied: bool = True, centroid_rank: int | None = None) -> Bundle:
        from flashhead_edge.export.exporter import export_bundle
        from flashhead_edge.export.options import ExportOptions
        from flashhead_edge.export.state_files import save_states
        from flashhead_edge.export.states import HiddenStates
        from flashhead_edge.index.build import IndexOptions

        key = (tied, centroid_rank)
        if key not in bundles:
            model = tiny_folder("llama", tied=tied)
            folder = tmp_path_factory.mktemp("whole")
            states = np.random.default_rng(0).standard_normal((600, 64), dtype=np.float32)
            file = folder / "states.safetensors"
            save_states(HiddenStates(states, np.full(600, "random"), np.full(600, -1, np.int64)), file)
            index = IndexOptions(cluster_size=8, always_scored=8, centroid_rank=centroid_rank)
            options = ExportOptions(calibration=str(file), body_precision="fp32", index=index)
            export_bundle(model, folder / "bundle", options)
            bundles[key] = Bundle.open(folder / "bundle")
        return bundles[key]

    return bundle_of


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail on any attempt to look up or reach another machine."""
    import socket

    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"network access: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
