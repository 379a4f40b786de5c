"""The implementations under test."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def interpreted_launches():
    """The launches of the Triton kernels, which Triton's interpreter runs: chosen when Triton is imported."""
    if "triton" in sys.modules:
        pytest.fail("Triton was imported before its interpreter could be chosen: run make test-kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield importlib.import_module("flashhead_edge.kernels.launches")


@pytest.fixture(scope="session")
def compiled_launches():
    """The launches of the Triton kernels on a GPU, over tensors of the CPU."""
    if not torch.cuda.is_available():
        pytest.fail(f"PyTorch {torch.__version__} finds no GPU here")
    return _OnGpu(importlib.import_module("flashhead_edge.kernels.launches"))


class _OnGpu:
    """Functions of a module whose arguments and results lie on the CPU."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._module, name)

        def call(*arguments: Any) -> Any:
            moved = [item.cuda() if isinstance(item, torch.Tensor) else item for item in arguments]
            results = function(*moved)
            for here, there in zip(arguments, moved, strict=True):
                if isinstance(here, torch.Tensor):
                    here.copy_(there)  # what was written in place
            if isinstance(results, torch.Tensor):
                return results.cpu()
            return results and tuple(tensor.cpu() for tensor in results)

        return call


@pytest.fixture(
    params=["torch", pytest.param("triton", marks=pytest.mark.triton), pytest.param("gpu", marks=pytest.mark.gpu)]
)
def functions(request):
    """All implementations, by the same names."""
    if request.param == "triton":
        return request.getfixturevalue("interpreted_launches")
    if request.param == "gpu":
        return request.getfixturevalue("compiled_launches")
    return importlib.import_module("flashhead_edge.kernels.torch_functions")
