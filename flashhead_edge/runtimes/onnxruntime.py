"""ONNX Runtime: ``head.onnx`` on the CPU or on any execution provider, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flashhead_edge import layout
from flashhead_edge.bundle import Bundle
from flashhead_edge.runtimes.base import HeadOutput, HeadShape
from flashhead_edge.runtimes.graph_choice import choose_graph
from flashhead_edge.runtimes.session import CPU_PROVIDER, can_be_greedy, open_session


class OnnxRuntimeHead:
    """Executes a head graph.

    Args:
        graph: ``head.onnx``, or any graph of the same contract.
        shape: Sizes of the head.
        threads: Threads of the operators; None leaves the choice to ONNX Runtime.
        providers: Execution providers by name; one that cannot be used is an error, never a silent fallback.

    Raises:
        OptionalDependencyError: ONNX Runtime is not installed.
        RuntimeUnavailableError: A provider cannot be used here.
        BundleError: ONNX Runtime refuses the graph.
    """

    name = "onnxruntime"

    def __init__(
        self,
        graph: Path,
        shape: HeadShape,
        *,
        threads: int | None = None,
        providers: Sequence[str] = (CPU_PROVIDER,),
    ) -> None:
        self.shape = shape
        self._session = open_session(graph, threads=threads, providers=providers)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())

    @classmethod
    def from_bundle(
        cls, bundle: Bundle, *, threads: int | None = None, providers: Sequence[str] = (CPU_PROVIDER,)
    ) -> OnnxRuntimeHead:
        """Open the head of a bundle, on the native library where it is usable."""
        graph = choose_graph(bundle, "head", providers)
        return cls(graph, HeadShape.of_bundle(bundle.manifest), threads=threads, providers=providers)

    def run(self, hidden_states: npt.NDArray[np.float32], *, greedy: bool = False) -> HeadOutput:
        """Score states; see :meth:`HeadRuntime.run`.

        Args:
            hidden_states: [B, H] float32.
            greedy: Whether only the tokens matter, as for :meth:`Decoder.step`.
        """
        feed: dict[str, npt.NDArray[Any]] = {"hidden_states": self.shape.check_states(hidden_states)}
        if greedy and can_be_greedy(self._session):
            feed[layout.GREEDY_INPUT] = np.array([True])
        return HeadOutput(*self._session.run(list(HeadOutput._fields), feed))
