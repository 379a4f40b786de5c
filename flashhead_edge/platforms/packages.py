"""Installed packages that execute models, from their metadata; none of them is imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

_CUDA_RUNTIME = re.compile(r"nvidia-cuda-runtime(?:-cu(\d+))?\s*\(?(?:[~=<>]+\s*(\d+))?")
_METADATA_FOLDER = re.compile(r"(.+?)-([^-]+)\.dist-info")
#: Distributions that all install the module ``onnxruntime``: any two of them overwrite each other's files.
ONNX_RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-trt-rtx",
)
#: What we call a package -> distributions that install it; the first that is there counts.
DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in ONNX_RUNTIMES},
    "onnxruntime-genai": ("onnxruntime-genai", "onnxruntime-genai-cuda"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
    "openvino": ("openvino",),
    "vllm": ("vllm",),
    "torch": ("torch",),
    "polygraphy": ("polygraphy",),
    "nvidia-ml-py": ("nvidia-ml-py",),
}


def installed_packages(distributions: Mapping[str, tuple[str, ...]] = DISTRIBUTIONS) -> dict[str, str]:
    """Versions of the packages that are installed.

    Args:
        distributions: What a package is called -> distributions that install it; the first that is there counts.

    Returns:
        Versions by the packages' names, in the order given.
    """
    found = _installed_distributions()
    versions = {}
    for name, candidates in distributions.items():
        version = next((found[normal] for normal in map(_normal, candidates) if normal in found), None)
        if version is not None:
            versions[name] = version
    return versions


def _installed_distributions() -> dict[str, str]:
    """Versions of everything installed, by normalized name.

    By the names of the folders that hold a distribution's metadata, which say both
    (https://packaging.python.org/specifications/recording-installed-packages): reading the metadata itself takes a
    parser of messages and 4 MB. What stands earlier on the path counts.
    """
    versions: dict[str, str] = {}
    for folder in sys.path:
        try:
            entries = sorted(Path(folder).iterdir())
        except OSError:
            continue
        for entry in entries:
            if match := _METADATA_FOLDER.fullmatch(entry.name):
                versions.setdefault(_normal(match[1]), match[2])
    return versions


def _normal(name: str) -> str:
    """A distribution's name as all its spellings have it in common."""
    return re.sub(r"[-_.]+", "-", name).lower()


def onnxruntime_cuda() -> str | None:
    """Major version of the CUDA that the installed onnxruntime-gpu was built for, from its metadata.

    Its extra ``cuda`` names the libraries: ``nvidia-cuda-runtime~=13.0``, or ``nvidia-cuda-runtime-cu12``.
    """
    if "onnxruntime-gpu" not in _installed_distributions():
        return None
    from importlib import metadata

    return cuda_of_requirements(metadata.requires("onnxruntime-gpu") or [])


def cuda_of_requirements(requirements: Iterable[str]) -> str | None:
    """Major version of CUDA in a package's requirements; None where they name none."""
    matches = (_CUDA_RUNTIME.match(line) for line in requirements)
    return next((match[1] or match[2] for match in matches if match and (match[1] or match[2])), None)


def installed_onnx_runtimes(packages: Mapping[str, str]) -> list[str]:
    """Those of the packages that install the module ``onnxruntime``."""
    return [name for name in ONNX_RUNTIMES if name in packages]
