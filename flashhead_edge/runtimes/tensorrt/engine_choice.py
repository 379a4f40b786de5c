"""Which of the engines that were built is for this bundle and this GPU, and why each of the others is not."""

from __future__ import annotations

from pathlib import Path

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import EngineError
from flashhead_edge.platforms.detection import DeviceFacts
from flashhead_edge.runtimes.tensorrt.engine_cache import EngineCache, EngineRecord
from flashhead_edge.runtimes.tensorrt.engine_key import EngineKey, hash_of_graph
from flashhead_edge.runtimes.tensorrt.probe import is_installed
from flashhead_edge.runtimes.tensorrt.target import name_of_gpu

_BUILD = "build one on this device: flashhead-edge build BUNDLE"


def choose_engine(
    bundle: Bundle, graph: str, facts: DeviceFacts, folder: Path | None = None
) -> tuple[Path, EngineRecord]:
    """The engine to run.

    Args:
        bundle: The bundle.
        graph: Name of the graph in it.
        facts: The device.
        folder: Where engines are kept; the bundle's own by default.

    Returns:
        The engine's file, whose bytes were compared, and its record.

    Raises:
        EngineError: None fits, or the one that fits is damaged.
    """
    cache = EngineCache(bundle.path / layout.ENGINES if folder is None else folder)
    hashes = hash_of_graph(bundle, graph)[:2]
    refused = []
    for record in cache.records():
        if record.key.graph != graph:
            continue
        obstacle = _obstacle(record.key, hashes, facts)
        if obstacle is not None:
            refused.append(f"{cache.path(record.key).name}: {obstacle}")
            continue
        damage = cache.damage(record)
        if damage is not None:
            raise EngineError(
                f"The engine {cache.path(record.key).name} cannot be used.", found=damage, hint=f"{_BUILD} --rebuild"
            )
        return cache.path(record.key), record
    raise EngineError(
        f"There is no engine of {graph} for this GPU in {cache.folder}.",
        found="; ".join(refused) or "no engine of this graph",
        hint=_BUILD,
    )


def _obstacle(key: EngineKey, hashes: tuple[str, str], facts: DeviceFacts) -> str | None:
    """What speaks against an engine."""
    gpu = facts.nvidia.gpus[0] if facts.nvidia.gpus else None
    here = gpu.compute_capability if gpu is not None else None
    here = here or (facts.jetson.compute_capability if facts.jetson is not None else None)
    if (key.graph_sha256, key.weights_sha256) != hashes:
        return "it was built of another export"
    if not is_installed(key.backend):
        return f"{key.backend} is not installed"
    if here is not None and here != key.compute_capability:
        return f"it is for compute capability {key.compute_capability}, and this GPU has {here}"
    name = name_of_gpu(facts)
    if key.gpu is not None and name is not None and key.gpu != name:
        return f"it is for {key.gpu}, and this is {name}"
    return None
