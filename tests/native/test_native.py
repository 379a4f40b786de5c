"""Where the native library is absent or off, everything says so and runs on standard operators."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flashhead_edge import layout, native
from flashhead_edge.bundle import Bundle, hash_file
from flashhead_edge.errors import RuntimeUnavailableError
from flashhead_edge.manifest import GraphRecord
from flashhead_edge.runtimes.graph_choice import choose_graph
from flashhead_edge.runtimes.onnxruntime import OnnxRuntimeHead
from flashhead_edge.runtimes.session import open_session
from tests.native.tiny_native import native_and_portable
from tests.tiny_heads import head_bundle, random_head, random_index, random_states


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with both forms of the head."""
    head = random_head(60, 32)
    index = random_index(head, 4, always=(1,))
    plain = head_bundle(tmp_path / "bundle", head, index, 3)
    native_and_portable(tmp_path / "other", head, index, 3)
    file = plain.path / layout.NATIVE_HEAD_GRAPH
    shutil.copy(tmp_path / "other" / layout.NATIVE_HEAD_GRAPH, file)
    record = plain.manifest.graphs["head"]
    plain.manifest.graphs["head_native"] = GraphRecord(file.name, record.inputs, record.outputs)
    plain.manifest.files[file.name] = hash_file(file)
    (plain.path / layout.MANIFEST).write_text(plain.manifest.to_json())
    return Bundle.open(plain.path)


@pytest.fixture
def reload() -> Iterator[None]:
    """Forget the loaded library before and after."""
    native._load.cache_clear()
    yield
    native._load.cache_clear()


def test_kernels_have_names() -> None:
    assert native.kernels() in ("scalar", "avx2", "avx512-vnni", "neon")
    with pytest.raises(RuntimeUnavailableError, match="mmx"):
        native.use_kernels("mmx")


def test_the_native_graph_is_chosen_where_the_library_is(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    states = random_states(4, 32)
    assert choose_graph(bundle, "head").name == layout.NATIVE_HEAD_GRAPH
    found = OnnxRuntimeHead.from_bundle(bundle).run(states)
    monkeypatch.setenv(native.SWITCH, "0")
    assert choose_graph(bundle, "head").name == layout.HEAD_GRAPH
    expected = OnnxRuntimeHead.from_bundle(bundle).run(states)
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)


def test_other_providers_get_the_portable_graph(bundle: Bundle) -> None:
    providers = ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert choose_graph(bundle, "head", providers).name == layout.HEAD_GRAPH


def test_a_bundle_without_native_graphs_runs_as_before(tmp_path: Path) -> None:
    head = random_head(60, 32)
    assert choose_graph(head_bundle(tmp_path / "b", head, random_index(head, 4), 3), "head").name == layout.HEAD_GRAPH


def test_off_means_off_with_a_reason(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.SWITCH, "0")
    assert not native.is_available()
    with pytest.raises(RuntimeUnavailableError, match="FLASHHEAD_EDGE_NATIVE is 0"):
        open_session(bundle.path / layout.NATIVE_HEAD_GRAPH)
    monkeypatch.setenv(native.SWITCH, "yes")
    with pytest.raises(RuntimeUnavailableError, match="means nothing"):
        native.is_available()


@pytest.mark.usefixtures("reload")
def test_absent_or_damaged_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    assert "not compiled" in str(native.unavailable_because())
    native._load.cache_clear()
    (tmp_path / "none.so").write_bytes(b"no library")
    assert "does not load" in str(native.unavailable_because())


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys, flashhead_edge.native as n; sys.exit(n._load.cache_info().currsize)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
