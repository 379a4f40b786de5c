"""The names that other people's programs import, and what importing them costs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import flashhead_edge

PUBLIC_NAMES = {
    "Bundle",
    "FlashHeadError",
    "Generation",
    "Generator",
    "HeadIndex",
    "LmHead",
    "__version__",
    "export_bundle",
}

#: Where each name is defined; moving one is fine as long as the name in the package still leads to it.
HOMES = {
    "Bundle": "flashhead_edge.bundle",
    "FlashHeadError": "flashhead_edge.errors",
    "Generation": "flashhead_edge.generator",
    "Generator": "flashhead_edge.generator",
    "HeadIndex": "flashhead_edge.index.head_index",
    "LmHead": "flashhead_edge.lm_head",
    "export_bundle": "flashhead_edge.export.exporter",
}

HEAVY_PACKAGES = {"accelerate", "gguf", "onnx", "onnx_ir", "onnxruntime", "onnxruntime_genai", "torch", "transformers"}


def _modules_after(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after ``statement``."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_all_lists_exactly_the_public_names() -> None:
    assert set(flashhead_edge.__all__) == PUBLIC_NAMES
    assert len(flashhead_edge.__all__) == len(PUBLIC_NAMES)


def test_dir_lists_the_public_names() -> None:
    assert set(dir(flashhead_edge)) >= PUBLIC_NAMES


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_every_public_name_can_be_reached(name: str) -> None:
    assert getattr(flashhead_edge, name) is not None


@pytest.mark.parametrize(("name", "home"), sorted(HOMES.items()))
def test_public_name_is_the_object_of_its_module(name: str, home: str) -> None:
    assert getattr(flashhead_edge, name) is getattr(importlib.import_module(home), name)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        flashhead_edge.no_such_name  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = _modules_after("import flashhead_edge")
    assert loaded & (HEAVY_PACKAGES | {"numpy", "click"}) == set()


@pytest.mark.parametrize("statement", [f"from flashhead_edge import {name}" for name in sorted(PUBLIC_NAMES)])
def test_importing_a_name_imports_nothing_heavy(statement: str) -> None:
    assert _modules_after(statement) & HEAVY_PACKAGES == set()


def test_the_command_line_starts_without_anything_heavy() -> None:
    statement = "from flashhead_edge.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    loaded = _modules_after(
        f"import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n{_indent(statement)}"
    )
    assert loaded & HEAVY_PACKAGES == set()


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
