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


def test_neon_kernels_score_as_the_portable_ones(tmp_path: Path) -> None:
    left_out = ("ort_kernel.cpp", "head_op.cpp", "attention_op.cpp", "products_op.cpp", "capi.cpp")
    sources = [path for path in sorted((ROOT / "native").glob("*.cpp")) if path.name not in left_out]
    program = tmp_path / "compare_kernels"
    flags = ["-std=c++17", "-O2", "-static", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'native'}"]
    command = [str(COMPILER), *flags, "-o", str(program), str(Path(__file__).with_name("compare_kernels.cpp"))]
    subprocess.run([*command, *map(str, sources)], check=True)
    ran = subprocess.run(
        [str(EMULATOR), str(program), "neon", "scalar"], capture_output=True, text=True, check=True, timeout=300
    )
    cases, same_tokens, same_candidates, apart = ran.stdout.split()
    assert (same_tokens, same_candidates) == (cases, cases)
    assert float(apart) < 1e-5
