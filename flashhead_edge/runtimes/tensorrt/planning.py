"""What will be built: the platform, the package, the profile and the key, settled before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import OptionError
from flashhead_edge.manifest import TensorRtRecord
from flashhead_edge.platforms.catalog import Platform
from flashhead_edge.platforms.detection import DeviceFacts
from flashhead_edge.runtimes.tensorrt.engine_build import EngineRequest
from flashhead_edge.runtimes.tensorrt.engine_key import EngineKey, hash_of_graph
from flashhead_edge.runtimes.tensorrt.package_choice import (
    check_package,
    check_types,
    choose_backend,
    precisions_of,
)
from flashhead_edge.runtimes.tensorrt.preflight import memory_estimate
from flashhead_edge.runtimes.tensorrt.probe import Package, probe
from flashhead_edge.runtimes.tensorrt.target import BuildTarget

Graph = Literal["head", "dense"]
#: What a user calls a graph -> its name in the bundle.
GRAPHS: dict[str, str] = {"head": "head_tensorrt", "dense": "dense_tensorrt"}
_DEFAULT_LEVEL = 3


@dataclass(frozen=True)
class BuildOptions:
    """What a caller may choose; None leaves it to the graph, the platform or this package.

    Attributes:
        graph: "head" or "dense".
        batch: Least, tuned and greatest batch.
        workspace_bytes: Limit of the workspace.
        optimization_level: 0 to 5: how long the builder may look for fast kernels.
        backend: "tensorrt" or "tensorrt-rtx".
        folder: Where engines are kept, instead of in the bundle.
    """

    graph: Graph = "head"
    batch: tuple[int, int, int] | None = None
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    backend: str | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class BuildPlan:
    """A build that can start.

    Attributes:
        platform: Name of the platform.
        backend_because: Why this package.
        key: What the engine depends on.
        request: What the child process is asked for.
        folder: Where the engine is kept.
        weights_bytes: Size of the graph's weights.
        memory_estimate: Memory that the build takes at its peak, in bytes.
        built_on: Of a Jetson that we are on: L4T release, JetPack and power mode.
    """

    platform: str
    backend_because: str
    key: EngineKey
    request: EngineRequest
    folder: Path
    weights_bytes: int
    memory_estimate: int
    built_on: Mapping[str, str]


def plan_build(
    bundle: Bundle,
    platform: Platform,
    facts: DeviceFacts,
    options: BuildOptions | None = None,
    *,
    ask: Callable[[str], Package] = probe,
) -> BuildPlan:
    """Settle what will be built; nothing is written.

    Args:
        bundle: An opened bundle.
        platform: What to build for.
        facts: The device that we are on.
        options: What the caller chose.
        ask: Asks an installed package for its version.

    Raises:
        BundleError: The bundle has no such graph.
        OptionError: The choices do not fit the graph, the platform or this device.
        EngineError: No package can build for the platform here; says why for each.
        RuntimeUnavailableError: The package does not load, or is of an unsupported version.
    """
    options = options or BuildOptions()
    name = GRAPHS[options.graph]
    record = _graph_record(bundle, name, options.graph)
    target = BuildTarget.of(platform, facts)
    check_types(record, target, options.graph)
    backend, because = choose_backend(platform, target, options.backend, ask)
    package = ask(backend)
    check_package(package, record, target)
    ahead_of_time = package.targets is not None
    batch = _batch(record, platform, options.batch)
    workspace = options.workspace_bytes or platform.build.get("workspace_bytes")
    graph_sha256, weights_sha256, weights_bytes = hash_of_graph(bundle, name)
    key = EngineKey(
        graph=name,
        graph_sha256=graph_sha256,
        weights_sha256=weights_sha256,
        backend=backend,
        tensorrt_version=package.version,
        compute_capability=target.compute_capability,
        gpu=None if ahead_of_time else target.gpu,
        cuda=None if ahead_of_time else target.cuda,
        batch=batch,
        workspace_bytes=workspace,
        optimization_level=_DEFAULT_LEVEL if options.optimization_level is None else options.optimization_level,
    )
    request = EngineRequest(
        backend=backend,
        graph=str(bundle.file(bundle.graph(name).file).resolve()),
        hidden_size=bundle.manifest.hidden_size,
        batch=batch,
        compute_capability=key.compute_capability,
        precisions=precisions_of(record),
        workspace_bytes=workspace,
        optimization_level=key.optimization_level,
        on_device=target.is_here,
    )
    return BuildPlan(
        platform=platform.name,
        backend_because=because,
        key=key,
        request=request,
        folder=options.folder or bundle.path / layout.ENGINES,
        weights_bytes=weights_bytes,
        memory_estimate=memory_estimate(backend, weights_bytes, workspace if platform.family == "jetson" else None),
        built_on=_board(facts),
    )


def _board(facts: DeviceFacts) -> dict[str, str]:
    """What may change how fast kernels are on a Jetson, as far as it is known."""
    if facts.jetson is None:
        return {}
    mode = facts.jetson.power_mode
    known = {"l4t": facts.jetson.l4t, "jetpack": facts.jetson.jetpack, "power_mode": mode.name if mode else None}
    return {name: value for name, value in known.items() if value is not None}


def _graph_record(bundle: Bundle, name: str, called: str) -> TensorRtRecord:
    """What the manifest says of a graph for TensorRT."""
    graph = bundle.manifest.graphs.get(name)
    if graph is None or graph.tensorrt is None:
        add = "--target tensorrt (or all)" + (" --tensorrt-dense fp16" if called == "dense" else "")
        raise OptionError(
            f"The bundle has no {called} in the form for TensorRT.",
            found=", ".join(sorted(bundle.manifest.graphs)),
            expected=name,
            hint=f"export the model again with {add}",
        )
    return graph.tensorrt


def _batch(record: TensorRtRecord, platform: Platform, wanted: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """The profile: what was asked for, or the graph's, no larger than the platform's."""
    profile = record.batch
    if wanted is not None:
        least, tuned, most = wanted
        if not 1 <= least <= tuned <= most <= profile.most:
            raise OptionError(
                "The batches do not fit.",
                found=",".join(map(str, wanted)),
                expected=f"1 <= least <= tuned <= greatest <= {profile.most}, which the graph was exported for",
                hint="export the model again with a greater --tensorrt-max-batch" if most > profile.most else None,
            )
        return wanted
    if record.form == "matmul":  # exported for large batches on purpose
        return profile.least, profile.tuned, profile.most
    most = max(min(profile.most, platform.build.get("max_batch_size", profile.most)), profile.least)
    return profile.least, min(profile.tuned, most), most
