"""Which of the two packages builds for a platform here, and whether it and the GPU have what a graph needs."""

from __future__ import annotations

from collections.abc import Callable

from flashhead_edge.errors import EngineError, OptionError
from flashhead_edge.manifest import TensorRtRecord
from flashhead_edge.platforms.catalog import Platform
from flashhead_edge.runtimes.tensorrt.generations import MODULES, generation_of
from flashhead_edge.runtimes.tensorrt.probe import Package, is_installed
from flashhead_edge.runtimes.tensorrt.target import BuildTarget

#: Types that not every GPU has; the manifest says from which compute capability on.
_SPECIAL_TYPES = ("fp8", "int4")
#: Options of the export that choose a graph's types.
_OPTIONS = {"head": ("--centroid-precision", "--cluster-precision"), "dense": ("--tensorrt-dense",)}


def precisions_of(record: TensorRtRecord) -> tuple[str, ...]:
    """Types of a graph's weights."""
    return tuple(dict.fromkeys(name for name in (record.centroid_precision, record.cluster_precision) if name))


def check_types(record: TensorRtRecord, target: BuildTarget, called: str) -> None:
    """Refuse a graph with types that the GPU lacks.

    Args:
        record: What the manifest says of the graph.
        target: The GPU.
        called: "head" or "dense".

    Raises:
        OptionError: Names the types and the options of the export that choose others.
    """
    least, found = record.least_compute_capability, target.compute_capability
    if _number(found) >= _number(least):
        return
    special = [name for name in precisions_of(record) if name in _SPECIAL_TYPES]
    if not special:
        raise OptionError(
            f"The GPU of {target.platform} is too old for these engines.",
            found=f"compute capability {found}",
            expected=f"{least} or newer",
            hint="run the bundle with ONNX Runtime there: flashhead-edge generate",
        )
    raise OptionError(
        f"The GPU of {target.platform} has no {' and no '.join(special)}, which this graph's weights are in.",
        found=f"compute capability {found}",
        expected=f"{least} or newer",
        hint=f"export the model again with int8 or fp16 for {' and '.join(_OPTIONS[called])}",
    )


def choose_backend(
    platform: Platform, target: BuildTarget, wanted: str | None, ask: Callable[[str], Package]
) -> tuple[str, str]:
    """The package to build with: the wanted one, or that of the platform's settings; never another instead.

    Args:
        platform: What to build for.
        target: Its GPU.
        wanted: "tensorrt" or "tensorrt-rtx"; None for the platform's.
        ask: Asks an installed package for its version and its GPUs.

    Returns:
        The package, and why it.

    Raises:
        EngineError: It cannot be used here; says why, and whether the other one could be.
    """
    backend = wanted or platform.build.get("backend")
    if backend is None:
        raise EngineError(
            f"There are no settings for TensorRT on {platform.name}.",
            found=f"runtimes {', '.join(platform.runtimes)}",
            hint="name a package with --backend to try it, or use another runtime: flashhead-edge runtimes",
        )
    obstacle = _obstacle(backend, target)
    if obstacle is None:
        return backend, "it was asked for" if wanted else f"it is the one for {platform.name}"
    (other,) = (name for name in MODULES if name != backend)
    remedy = f"pip install 'flashhead-edge[{backend}]'"
    if backend == "tensorrt" and platform.family == "jetson":
        remedy += "; tensorrt itself is JetPack's python3-libnvinfer: the environment needs --system-site-packages"
    if backend == "tensorrt" and not target.is_here:
        remedy = f"copy the bundle to the device and run `flashhead-edge build BUNDLE --platform {platform.name}` there"
    if _obstacle(other, target) is None and target.compute_capability in (ask(other).targets or ()):
        remedy += f", or try --backend {other}"
    raise EngineError(f"{backend} cannot build for {platform.name} here.", found=obstacle, hint=remedy)


def check_package(package: Package, record: TensorRtRecord, target: BuildTarget) -> None:
    """Refuse a version that cannot read the graph, or does not know the GPU.

    Args:
        package: The package.
        record: What the manifest says of the graph.
        target: The GPU.

    Raises:
        OptionError: The graph is too new for it.
        EngineError: It does not know the GPU.
        RuntimeUnavailableError: It is of an unsupported version.
    """
    most = generation_of(package.backend, package.version).most_opset
    if most is not None and record.opset > most:
        raise OptionError(
            f"TensorRT {package.version} does not read this graph.",
            found=f"opset {record.opset} ({', '.join(precisions_of(record))})",
            expected=f"opset {most} or older",
            hint="export the model again with int8, fp16 or fp32 weights, or update JetPack",
        )
    if package.targets is not None and target.compute_capability not in package.targets:
        raise EngineError(
            f"{package.backend} {package.version} does not build for {target.platform}.",
            found=f"compute capability {target.compute_capability}",
            expected=", ".join(package.targets),
            hint="build on the device itself with --backend tensorrt",
        )


def _obstacle(backend: str, target: BuildTarget) -> str | None:
    """What speaks against a package, as far as is known without asking it."""
    if backend == "tensorrt" and not target.is_here:
        return f"tensorrt builds only on the device itself, and this is {target.here}"
    return None if is_installed(backend) else f"{backend} is not installed"


def _number(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))
