"""The kernels of 64-bit ARM against the portable ones, compiled across and run under qemu where both are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")

pytestmark = pytest.mark.skipif(
    COMPILER is None or EMULATOR is None, reason="needs g++-aarch64-linux-gnu and qemu-user"
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """All of the library that needs neither ONNX Runtime nor Python."""
    folder = tmp_path_factory.mktemp("objects")
    left_out = ("ort_kernel.cpp", "head_op.cpp", "attention_op.cpp", "products_op.cpp", "embedding_op.cpp", "capi.cpp")
    sources = [path for path in sorted((ROOT / "native").glob("*.cpp")) if path.name not in left_out]
    compile_for_arm(["-c", *map(str, sources)], folder)
    return [str(folder / f"{path.stem}.o") for path in sources]


def compile_for_arm(arguments: list[str], folder: Path) -> None:
    flags = ["-std=c++17", "-O2", "-static", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'native'}"]
    subprocess.run([str(COMPILER), *flags, *arguments], check=True, cwd=folder)


def compare(name: str, objects: list[str], folder: Path, *options: str) -> list[str]:
    """What a program of this folder prints of both sets of kernels."""
    compile_for_arm(["-o", name, str(Path(__file__).with_name(f"{name}.cpp")), *objects], folder)
    command = [str(EMULATOR), *options, str(folder / name), "neon", "scalar"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.split()


def test_neon_kernels_score_as_the_portable_ones(objects: list[str], tmp_path: Path) -> None:
    cases, same_tokens, same_candidates, apart = compare("compare_kernels", objects, tmp_path)
    assert (same_tokens, same_candidates) == (cases, cases)
    assert float(apart) < 1e-5


@pytest.mark.parametrize("processor", ["max", "cortex-a53"], ids=["dot products", "no dot products"])
def test_neon_products_have_the_portable_ones_bits(processor: str, objects: list[str], tmp_path: Path) -> None:
    cases, equal = compare("compare_products", objects, tmp_path, "-cpu", processor)
    assert equal == cases
