"""Whole tiny models, exported for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flashhead_edge import Bundle


@pytest.fixture(scope="session")
def whole_bundle(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """A bundle with a body, of a tied or an untied model."""
    bundles: dict[bool, Bundle] = {}

    def bundle_of(*, tied: bool = True) -> Bundle:
        from flashhead_edge.export.exporter import export_bundle
        from flashhead_edge.export.options import ExportOptions
        from flashhead_edge.export.state_files import save_states
        from flashhead_edge.export.states import HiddenStates
        from flashhead_edge.index.build import IndexOptions

        if tied not in bundles:
            model = tiny_folder("llama", tied=tied)
            folder = tmp_path_factory.mktemp("whole")
            states = np.random.default_rng(0).standard_normal((600, 64), dtype=np.float32)
            file = folder / "states.safetensors"
            save_states(HiddenStates(states, np.full(600, "random"), np.full(600, -1, np.int64)), file)
            index = IndexOptions(cluster_size=8, always_scored=8)
            options = ExportOptions(calibration=str(file), body_precision="fp32", index=index)
            export_bundle(model, folder / "bundle", options)
            bundles[tied] = Bundle.open(folder / "bundle")
        return bundles[tied]

    return bundle_of
