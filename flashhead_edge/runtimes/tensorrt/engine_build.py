"""What an engine is built of, and the child process that builds it.

``python -m flashhead_edge.runtimes.tensorrt.engine_build REQUEST ENGINE PARENT`` reads an :class:`EngineRequest` as
JSON, writes the engine, and ends when the process PARENT does. TensorRT's log goes to its standard output. Polygraphy
chooses between the two packages when it is imported.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flashhead_edge.errors import EngineError
from flashhead_edge.runtimes.tensorrt.generations import MODULES, generation_of

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux
#: Said by us in the log, for what TensorRT does not say itself.
OPENED_LAYERS = "The engine opens here; its layers:"


@dataclass(frozen=True)
class EngineRequest:
    """One build.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        graph: Path of the ONNX file.
        hidden_size: H, width of the input ``hidden_states``.
        batch: Least, tuned and greatest batch of the profile.
        compute_capability: Of the GPU to build for, such as "8.6"; "tensorrt" builds for the GPU that is there.
        precisions: Types of the weights; networks of TensorRT 8.6 must allow them.
        workspace_bytes: Limit of the workspace; None leaves it to TensorRT.
        optimization_level: 0 to 5.
        timing_cache: File of measured times to start from and to add to; None for none.
        on_device: Whether the GPU to build for is there, so that the engine can be opened.
    """

    backend: str
    graph: str
    hidden_size: int
    batch: tuple[int, int, int]
    compute_capability: str
    precisions: tuple[str, ...] = ()
    workspace_bytes: int | None = None
    optimization_level: int = 3
    timing_cache: str | None = None
    on_device: bool = False

    def to_json(self) -> str:
        """The request as text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> EngineRequest:
        """Read what :meth:`to_json` wrote."""
        fields = json.loads(text)
        return EngineRequest(**{**fields, "batch": tuple(fields["batch"]), "precisions": tuple(fields["precisions"])})


def write_engine(request: EngineRequest, engine: Path) -> None:
    """Build in this process, which must not have imported polygraphy for the other package.

    Args:
        request: What to build.
        engine: File to write.
    """
    trt = import_package(request.backend)
    from polygraphy.backend.trt import EngineBytesFromNetwork, EngineFromBytes, NetworkFromOnnxPath, Profile
    from polygraphy.logger import G_LOGGER

    G_LOGGER.colors = False
    G_LOGGER.module_severity = G_LOGGER.EXTRA_VERBOSE  # scratch memory and layers are said in TensorRT's log alone
    generation = generation_of(request.backend, trt.__version__)
    options: dict[str, Any] = {
        "profiles": [Profile().add("hidden_states", *((size, request.hidden_size) for size in request.batch))],
        "builder_optimization_level": request.optimization_level,
    }
    if request.timing_cache is not None and Path(request.timing_cache).exists():
        options["load_timing_cache"] = request.timing_cache
    if request.workspace_bytes is not None:
        options["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: request.workspace_bytes}
    network = NetworkFromOnnxPath(request.graph, strongly_typed=generation.strongly_typed)
    config = generation.config(request, options)
    built = EngineBytesFromNetwork(network, config=config, save_timing_cache=request.timing_cache)()
    with engine.open("wb") as file:
        file.write(built)
    if request.on_device:
        sys.stdout.write(f"{OPENED_LAYERS} {EngineFromBytes(built)().num_layers}\n")  # raises where it does not open


def import_package(backend: str) -> Any:
    """Import one of the two packages, and have polygraphy use it.

    Args:
        backend: "tensorrt" or "tensorrt-rtx".

    Raises:
        ImportError: It is missing, or its libraries are.
        EngineError: Polygraphy uses the other one in this process already.
    """
    uses_rtx = backend == "tensorrt-rtx"
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = str(int(uses_rtx))
    package = importlib.import_module(MODULES[backend])
    from polygraphy import config

    if bool(config.USE_TENSORRT_RTX) is not uses_rtx:
        raise EngineError(
            f"Polygraphy was imported for the other package before {backend} in this process.",
            hint=f"set POLYGRAPHY_USE_TENSORRT_RTX={int(uses_rtx)} before, or start a new process",
        )
    return package


def die_with_parent(parent: int) -> None:
    """Have Linux kill this process when its parent ends, however it ends.

    Args:
        parent: Id of the parent, which may have ended already.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("The process that asked for this build has ended.")


if __name__ == "__main__":
    die_with_parent(int(sys.argv[3]))
    write_engine(EngineRequest.from_json(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
