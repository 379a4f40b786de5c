"""What each generation of the two packages wants: the only place that knows versions of TensorRT.

Polygraphy's loaders hide most differences. What is left is how a network is typed, and for which GPUs one builds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flashhead_edge.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    from flashhead_edge.runtimes.tensorrt.engine_build import EngineRequest

#: Name of a package -> what Python imports.
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
#: Opset that the parser of TensorRT 8.6 ends at.
_OPSET_OF_8 = 17


@dataclass(frozen=True)
class Generation:
    """A range of versions that are configured alike.

    Attributes:
        name: Such as "tensorrt 10".
        strongly_typed: Whether the network's types are those of the graph; otherwise flags allow types.
        most_opset: Newest opset that its parser reads; None where that is no limit for our graphs.
        config: Makes polygraphy's loader of the builder's configuration, given the request and common options.
    """

    name: str
    strongly_typed: bool
    most_opset: int | None
    config: Callable[[EngineRequest, dict[str, Any]], Any]


def generation_of(backend: str, version: str) -> Generation:
    """The generation of a version; one that is newer than all is taken for the newest.

    Args:
        backend: "tensorrt" or "tensorrt-rtx".
        version: Such as "10.3.0".

    Raises:
        RuntimeUnavailableError: The version is too old.
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    if backend == "tensorrt-rtx":
        return Generation("tensorrt-rtx 1", True, None, _rtx_config)
    if (major, minor) < (8, 6) or major == 9:
        raise RuntimeUnavailableError(
            "This version of TensorRT is not supported.",
            found=version,
            expected="8.6, 10 or 11",
            hint="update JetPack, or install another version of tensorrt",
        )
    if major == 8:
        return Generation("tensorrt 8", False, _OPSET_OF_8, _weak_config)
    return Generation(f"tensorrt {min(major, 11)}", True, None, _plain_config)


def _weak_config(request: EngineRequest, options: dict[str, Any]) -> Any:
    """Networks of 8.6 have no types of their own: what the graph has must be allowed."""
    from polygraphy.backend.trt import CreateConfig

    precisions = request.precisions
    return CreateConfig(fp16="fp16" in precisions, int8="int8" in precisions, **options)


def _plain_config(request: EngineRequest, options: dict[str, Any]) -> Any:
    """No precision flag: 11 has none left."""
    from polygraphy.backend.trt import CreateConfig

    return CreateConfig(**options)


def _rtx_config(request: EngineRequest, options: dict[str, Any]) -> Any:
    """For a GPU that need not be there, and float32 without TF32, as the other package has it by polygraphy."""
    import tensorrt_rtx
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.backend.trt import PostprocessConfig

    def without_tf32(builder: Any, network: Any, config: Any) -> None:
        config.clear_flag(tensorrt_rtx.BuilderFlag.TF32)

    major, minor = (int(part) for part in request.compute_capability.split("."))
    return PostprocessConfig(CreateConfigRTX(compute_capabilities=[(major, minor)], **options), without_tf32)
