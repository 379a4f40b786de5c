"""TensorRT: the two-stage head as an engine on an NVIDIA GPU. Not measured on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flashhead_edge.bundle import Bundle
from flashhead_edge.errors import BundleError, OptionalDependencyError, RuntimeUnavailableError
from flashhead_edge.manifest import TensorRecord
from flashhead_edge.platforms.detection import detect
from flashhead_edge.runtimes.base import HeadOutput, HeadShape
from flashhead_edge.runtimes.tensorrt.engine_choice import choose_engine
from flashhead_edge.runtimes.tensorrt.engine_session import EngineSession

_GRAPH = "head_tensorrt"
_TYPES: dict[str, Any] = {
    "token_ids": np.int64,
    "candidate_ids": np.int64,
    "candidate_logits": np.float32,
    "cluster_scores": np.float32,
}


class Session(Protocol):
    """Executes an engine for batches from ``batch[0]`` to ``batch[1]``."""

    batch: tuple[int, int]

    def run(self, states: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name for [B, H] states."""


class TensorRtHead:
    """Executes the head on an engine; larger batches than the engine's go in parts, smaller ones are filled up.

    Args:
        session: The engine.
        shape: Sizes of the head.
        package: What executes it, such as "tensorrt 10.3.0".
    """

    name = "tensorrt"

    def __init__(self, session: Session, shape: HeadShape, package: str) -> None:
        self.shape = shape
        self.providers: tuple[str, ...] = (package,)
        self._session = session

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, cache_dir: Path | None = None) -> TensorRtHead:
        """Open the engine of a bundle that was built for this GPU; nothing is built.

        Args:
            bundle: An opened bundle.
            cache_dir: Where engines are kept; the bundle's own folder by default.

        Raises:
            RuntimeUnavailableError: There is no NVIDIA GPU, or TensorRT or the CUDA runtime cannot be used.
            EngineError: No engine fits, or the one that does is damaged or refused by TensorRT.
            BundleError: The bundle has no head for TensorRT.
        """
        graph = bundle.manifest.graphs.get(_GRAPH)
        if graph is None or graph.tensorrt is None:
            raise BundleError(
                "The bundle has no head in the form for TensorRT.",
                found=", ".join(sorted(bundle.manifest.graphs)),
                expected=_GRAPH,
                hint="export the model again with --target tensorrt (or all)",
            )
        facts = detect(try_providers=False)
        if not facts.has_nvidia_gpu:
            raise RuntimeUnavailableError(
                "TensorRT runs on NVIDIA GPUs, and there is none here.",
                found=facts.nvidia.unknown_because or "no driver and no Jetson",
                hint="flashhead-edge runtimes shows what can be used",
            )
        path, record = choose_engine(bundle, _GRAPH, facts, cache_dir)
        key = record.key
        weights = {name: _bytes(bundle, tensor) for name, tensor in graph.tensorrt.weights.items()}
        try:
            session = EngineSession(path, key.backend, key.tensorrt_version, weights)
        except ImportError as error:
            raise OptionalDependencyError(error.name or key.backend, key.backend, "Running an engine") from error
        return cls(session, HeadShape.of_bundle(bundle.manifest), f"{key.backend} {key.tensorrt_version}")

    def run(self, hidden_states: npt.NDArray[np.float32]) -> HeadOutput:
        """Score states; see :meth:`HeadRuntime.run`."""
        states = self.shape.check_states(hidden_states)
        least, most = self._session.batch
        parts = []
        for start in range(0, len(states), most):
            part = states[start : start + most]
            rows = len(part)
            if rows < least:
                part = np.concatenate([part, np.zeros((least - rows, part.shape[1]), np.float32)])
            outputs = self._session.run(part)
            parts.append({name: outputs[name][:rows].astype(kind, copy=False) for name, kind in _TYPES.items()})
        if len(parts) == 1:
            return HeadOutput(**parts[0])
        return HeadOutput(**{name: np.concatenate([part[name] for part in parts]) for name in _TYPES})


def _bytes(bundle: Bundle, tensor: TensorRecord) -> npt.NDArray[np.uint8]:
    """A tensor's bytes, mapped."""
    path = bundle.file(tensor.file)
    return np.memmap(path, np.uint8, "r", offset=tensor.offset, shape=(tensor.length,))
