"""Before a build: is there enough memory and room for what it will take?

TensorRT for RTX held 0.2 GB and three times the weights at its peak, in builds ahead of time of heads of 1 MB to
1.3 GB: the mapped file, a copy in the network and the engine. The other package also holds the weights, the workspace
and a context on the GPU, which on a board is the same memory; its figure is a guess, not measured.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from flashhead_edge.errors import EngineError
from flashhead_edge.platforms.free_memory import free_memory_bytes

_MIB = 1 << 20
_RTX_BASE, _RTX_COPIES = 256 * _MIB, 3
_BASE, _COPIES = 1536 * _MIB, 4
#: Kernels of a plan: no plan of ours had more than 0.7 MB beside its weights.
_KERNELS = 8 * _MIB
#: What to do where memory does not suffice.
MEMORY_ADVICE = (
    "close other programs (on a Jetson also the desktop), add swap on a disk, lower --workspace or --batch, or export"
    " with smaller weights (--cluster-precision fp16) or with --tensorrt-weight-inputs"
)


def memory_estimate(backend: str, weights_bytes: int, workspace_bytes: int | None) -> int:
    """Memory that a build takes at its peak, in bytes.

    Args:
        backend: "tensorrt" or "tensorrt-rtx".
        weights_bytes: Size of the graph's weights.
        workspace_bytes: Limit of the workspace where the GPU has no memory of its own; None elsewhere.
    """
    if backend == "tensorrt-rtx":
        return _RTX_BASE + _RTX_COPIES * weights_bytes
    return _BASE + _COPIES * weights_bytes + (workspace_bytes or 0)


def check_memory(estimate: int, root: Path = Path("/")) -> None:
    """Refuse to begin what memory does not suffice for.

    Args:
        estimate: Bytes that the build will take.
        root: Root of the file system in which the system says what is free.

    Raises:
        EngineError: Less is free.
    """
    free = free_memory_bytes(root)
    if free is not None and free < estimate:
        raise EngineError(
            "There is too little free memory to build this engine.",
            found=f"{free / _MIB:,.0f} MiB free",
            expected=f"about {estimate / _MIB:,.0f} MiB",
            hint=f"{MEMORY_ADVICE}; --no-memory-check tries it nevertheless",
        )


def check_room(folder: Path, weights_bytes: int) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: Where the engine will lie.
        weights_bytes: Size of the graph's weights, which are in the engine.

    Raises:
        EngineError: Less is free.
    """
    free, needed = shutil.disk_usage(folder).free, weights_bytes + _KERNELS
    if free < needed:
        raise EngineError(
            "The disk is too full for this engine.",
            found=f"{free / _MIB:,.0f} MiB free in {folder}",
            expected=f"about {needed / _MIB:,.0f} MiB",
            hint="make room, or name a folder on another disk with --cache-dir",
        )
