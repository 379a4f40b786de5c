"""The pages keep up with the code: keys, file names and links."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from flashhead_edge import layout, manifest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
RECORDS = [value for value in vars(manifest).values() if dataclasses.is_dataclass(value) and isinstance(value, type)]

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="runs in a source tree")


@pytest.fixture(scope="module")
def format_page() -> str:
    return (ROOT / "docs" / "bundle-format.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_bundle_format_names_every_manifest_key(record: type, format_page: str) -> None:
    missing = [item.name for item in dataclasses.fields(record) if f"`{item.name}`" not in format_page]
    assert missing == []


def test_bundle_format_names_every_file_and_table(format_page: str) -> None:
    names = [value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)]
    assert [name for name in names if name not in format_page] == []


def test_bundle_format_is_of_this_schema_version(format_page: str) -> None:
    assert format_page.startswith(f"# The bundle, schema version {layout.SCHEMA_VERSION}\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_table_markers_come_in_pairs(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", page.read_text(encoding="utf-8"))
    opened, closed = re.findall(r"<!-- table:(\w+) -->", text), re.findall(r"<!-- /table:(\w+) -->", text)
    assert opened == closed
