"""The implementations under test."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.fixture(scope="session")
def interpreted_launches():
    """The launches of the Triton kernels, which Triton's interpreter runs: chosen when Triton is imported."""
    if "triton" in sys.modules:
        pytest.fail("Triton was imported before its interpreter could be chosen: run make test-kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield importlib.import_module("flashhead_edge.kernels.launches")


@pytest.fixture(params=["torch", pytest.param("triton", marks=pytest.mark.triton)])
def functions(request):
    """Both implementations, by the same names."""
    if request.param == "triton":
        return request.getfixturevalue("interpreted_launches")
    return importlib.import_module("flashhead_edge.kernels.torch_functions")
