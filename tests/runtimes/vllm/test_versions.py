from __future__ import annotations

from pathlib import Path

import pytest

from flashhead_edge.platforms.platform_file import tomllib
from flashhead_edge.runtimes.vllm.versions import NEWEST_CHECKED, OLDEST, version_warning


@pytest.mark.parametrize("version", ["0.14.0", "0.14.1", "0.28.0", "0.32.0+cpu", "0.33.0", "0.33.1rc1"])
def test_checked_versions_are_silent(version):
    assert version_warning(version) is None


@pytest.mark.parametrize("version", ["0.13.9", "0.9.2", "0.34.0", "1.0.0", "dev", "0.1.dev1+gabc"])
def test_other_versions_warn(version):
    warning = version_warning(version)
    assert f"this is {version}" in warning
    assert "0.14 to 0.33" in warning
    assert "What to do" in warning


def test_the_package_asks_for_the_oldest():
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["vllm"][0].startswith(f"vllm>={OLDEST[0]}.{OLDEST[1]} ")
    assert OLDEST < NEWEST_CHECKED
