"""What the tests of the native library share: they run where it was compiled, and say so where it was not."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from flashhead_edge import native
from flashhead_edge.errors import RuntimeUnavailableError


def _runs_here(name: str) -> bool:
    try:
        native.use_kernels(name)
    except RuntimeUnavailableError:
        return False
    native.use_kernels(None)
    return True


#: Sets of kernels that this processor runs.
KERNELS = [name for name in ("scalar", "avx2", "avx512-vnni", "neon") if _runs_here(name)]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    if not native.is_available() and not os.environ.get("CI"):
        pytest.skip(f"no native library: {native.unavailable_because()}")
    assert native.is_available()


@pytest.fixture(params=KERNELS or ["none"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every set of kernels that this processor runs, one after another."""
    native.use_kernels(request.param)
    yield request.param
    native.use_kernels(None)
