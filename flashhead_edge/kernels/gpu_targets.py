"""The GPUs that kernels are compiled for ahead of time, and the PTX that each one's driver accepts.

A driver compiles PTX up to the version of its own CUDA. Which PTX came with which CUDA:
https://docs.nvidia.com/cuda/parallel-thread-execution/#release-notes
"""

from __future__ import annotations

from dataclasses import dataclass

#: CUDA version -> newest PTX version, times ten, that its driver accepts.
PTX_OF_CUDA: dict[tuple[int, int], int] = {
    (11, 4): 74,
    (11, 8): 78,
    (12, 0): 80,
    (12, 1): 81,
    (12, 2): 82,
    (12, 3): 83,
    (12, 4): 84,
    (12, 5): 85,
    (12, 6): 85,
    (12, 8): 87,
    (12, 9): 88,
    (13, 0): 90,
    (13, 1): 91,
    (13, 2): 92,
}


@dataclass(frozen=True)
class GpuTarget:
    """A kind of GPU.

    Attributes:
        capability: Compute capability times ten.
        cuda: Oldest CUDA whose driver must accept the kernels; its PTX version is the limit.
        devices: What has such a GPU.
    """

    capability: int
    cuda: tuple[int, int]
    devices: str

    @property
    def name(self) -> str:
        """Such as "sm_87"."""
        return f"sm_{self.capability}"

    @property
    def ptx_version(self) -> int:
        """PTX version times ten."""
        return PTX_OF_CUDA[self.cuda]


#: The oldest CUDA is that of the oldest JetPack with our Python, or the first one that knows the GPU (12.0 at least).
GPU_TARGETS: tuple[GpuTarget, ...] = (
    GpuTarget(80, (12, 0), "A100"),
    GpuTarget(87, (12, 2), "Jetson Orin (JetPack 6.0 and newer)"),
    GpuTarget(89, (12, 0), "RTX 40, L4"),
    GpuTarget(90, (12, 0), "H100, H200"),
    GpuTarget(110, (13, 0), "Jetson Thor (JetPack 7.0 and newer)"),
    GpuTarget(120, (12, 8), "RTX 50"),
)
