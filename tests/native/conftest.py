"""What the tests of the native library share: they run where it was compiled, and say so where it was not."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from flashhead_edge import native
from flashhead_edge.errors import RuntimeUnavailableError

NAMES = ("scalar", "avx2", "avx512-vnni", "neon")


@pytest.fixture(autouse=True)
def compiled() -> None:
    reason = native.unavailable_because()
    if reason is not None and not os.environ.get("CI"):
        pytest.skip(f"no native library: {reason}")
    assert reason is None


@pytest.fixture(params=NAMES)
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every set of kernels that this processor runs, one after another."""
    try:
        native.use_kernels(request.param)
    except RuntimeUnavailableError:
        pytest.skip(f"this processor does not run {request.param}")
    yield request.param
    native.use_kernels(None)
