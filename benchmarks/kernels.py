"""Compiles the GPU kernels for every target and writes what they take of a GPU to ``results/kernels.json``.

Nothing is run: there is no time in the result. Needs Triton, no GPU: ``python -m benchmarks.kernels``.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import triton

from flashhead_edge.kernels.compile import compile_kernels

RESULT = Path(__file__).parent / "results" / "kernels.json"
KEYS = ("build", "target", "ptx_version", "threads", "registers", "spill_bytes", "shared_bytes")


def main() -> None:
    """Compile, and keep the resources."""
    with tempfile.TemporaryDirectory() as folder:
        kernels = compile_kernels(Path(folder, "kernels"))
    report = {
        "triton_version": triton.__version__,
        "kernels": [{key: kernel[key] for key in KEYS} for kernel in kernels],
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
