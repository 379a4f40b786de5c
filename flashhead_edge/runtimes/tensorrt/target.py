"""The GPU that an engine is built for, and whether it is in this machine."""

from __future__ import annotations

from dataclasses import dataclass

from flashhead_edge.errors import OptionError
from flashhead_edge.platforms.catalog import Catalog, Platform
from flashhead_edge.platforms.detection import DeviceFacts
from flashhead_edge.platforms.matching import match_platform

_SUPER = "-super"


@dataclass(frozen=True)
class BuildTarget:
    """A GPU to build for.

    Attributes:
        platform: Name of the platform.
        compute_capability: Of its GPU, such as "8.7".
        is_here: Whether this machine is that platform.
        here: What this machine is, in words.
        gpu: Name of this machine's GPU; None where it is another platform or nameless.
        cuda: Major version of the CUDA that this machine's driver runs; None as above.
    """

    platform: str
    compute_capability: str
    is_here: bool
    here: str
    gpu: str | None
    cuda: str | None

    @classmethod
    def of(cls, platform: Platform, facts: DeviceFacts) -> BuildTarget:
        """Settle the target.

        Args:
            platform: What to build for.
            facts: The device that we are on.

        Raises:
            OptionError: The platform has no NVIDIA GPU.
        """
        if platform.compute_capability is None:
            raise OptionError(
                f"{platform.name} has no NVIDIA GPU, so there are no engines for it.",
                found=f"runtimes {', '.join(platform.runtimes)}",
                expected="a platform with a compute capability: flashhead-edge platforms",
                hint="the bundle runs there as it is: flashhead-edge generate",
            )
        match = match_platform(facts)
        # A Super board is the same board in another power mode.
        is_here = match.name is not None and match.name.removesuffix(_SUPER) == platform.name.removesuffix(_SUPER)
        is_here = is_here and facts.has_nvidia_gpu
        gpu = facts.nvidia.gpus[0] if facts.nvidia.gpus else None
        cuda = facts.nvidia.cuda_version
        return cls(
            platform=platform.name,
            compute_capability=(gpu.compute_capability if is_here and gpu is not None else None)
            or platform.compute_capability,
            is_here=is_here,
            here=match.name or f"no platform that we know ({match.reason})",
            gpu=name_of_gpu(facts) if is_here else None,
            cuda=cuda.partition(".")[0] if is_here and cuda else None,
        )


def name_of_gpu(facts: DeviceFacts) -> str | None:
    """The board's name, or that of the first GPU.

    Args:
        facts: The device.
    """
    board = facts.jetson.model if facts.jetson is not None else None
    return board or (facts.nvidia.gpus[0].name if facts.nvidia.gpus else None)


def platform_here(catalog: Catalog, facts: DeviceFacts) -> Platform:
    """The platform of this machine.

    Args:
        catalog: The platforms.
        facts: The device that we are on.

    Raises:
        OptionError: It has no NVIDIA GPU, or is of no platform that we know.
    """
    match = match_platform(facts, catalog.platforms.values())
    platform = None if match.name is None else catalog.platforms[match.name]
    if platform is None or platform.compute_capability is None:
        raise OptionError(
            "No NVIDIA GPU that the catalogue knows was found here.",
            found=match.name or match.reason,
            expected="a platform to build for",
            hint="name one with --platform; `flashhead-edge platforms` lists them, `doctor` says what was found",
        )
    return platform
