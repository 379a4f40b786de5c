"""Logits recorded as CUDA graphs: one launch for the host instead of many.

A graph is recorded for 1, 2, 4, 8, ... states when so many first come. Fewer states are filled up with copies of the
first one, which open no further clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Recorded:
    """A graph, what it reads [N, H], and what it writes [N, W]."""

    graph: torch.cuda.CUDAGraph
    states: torch.Tensor
    logits: torch.Tensor


class RecordedLogits:
    """Replays what a function launches on a GPU.

    Args:
        function: Gives logits [N, W] of states [N, H]. Which kernels it launches may depend on shapes only, and it must
            not wait for the device.
        rows: The weight that it reads; when its memory is another one, everything is recorded anew.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> None:
        self._function = function
        self._rows = rows
        self._address = rows.data_ptr()
        self._recorded: dict[tuple[int, torch.dtype], _Recorded] = {}

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Logits.

        Args:
            states: [N, H] on the GPU, N at least 1.

        Returns:
            [N, W], the caller's own.
        """
        import torch

        if torch.cuda.is_current_stream_capturing():  # part of a greater graph
            return self._function(states)
        if self._rows.data_ptr() != self._address:
            self._recorded.clear()
            self._address = self._rows.data_ptr()
        count = len(states)
        size = 1 << (count - 1).bit_length()
        key = (size, states.dtype)
        if key not in self._recorded:
            self._recorded[key] = self._record(states, size)
        recorded = self._recorded[key]
        recorded.states[:count].copy_(states)
        if count < size:
            recorded.states[count:].copy_(states[:1])
        recorded.graph.replay()
        return recorded.logits[:count].clone()

    def _record(self, states: torch.Tensor, size: int) -> _Recorded:
        """Run once beside the current stream, so that everything is compiled and set up, then record."""
        import torch

        with torch.cuda.device_of(states):
            buffer = states[:1].repeat(size, 1)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._function(buffer)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on using the device meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                logits = self._function(buffer)
        return _Recorded(graph, buffer, logits)
