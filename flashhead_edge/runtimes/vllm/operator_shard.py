"""A device's part of a head that the operators score: Triton kernels on GPUs, plain torch elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flashhead_edge.kernels.head_tensors import CentroidTensors, HeadTensors, LogitColumns
from flashhead_edge.runtimes.vllm.row_threshold import MAX_ROWS, is_small, peak_bandwidth

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Scored:
    """What the operators found of N states.

    Attributes:
        exact: Logits of opened clusters' slots, [T * C, N].
        best: [N] float32.
        estimates: Of closed clusters, infinity for opened ones, [K, N] float32.
    """

    exact: torch.Tensor
    best: torch.Tensor
    estimates: torch.Tensor


@dataclass(frozen=True)
class OperatorShard:
    """A part that the operators of :mod:`flashhead_edge.kernels.operators` score.

    Attributes:
        head: Stage 2; its rows are vLLM's own weight, [W, H].
        columns: Slot of each of the W rows.
        centroids: [K, H] float32, or codes of them.
        bias: [K] float32.
        selection_offset: [K] float32.
        num_probes: P.
        path: "torch" or "triton".
    """

    head: HeadTensors
    columns: LogitColumns
    centroids: torch.Tensor | CentroidTensors
    bias: torch.Tensor
    selection_offset: torch.Tensor
    num_probes: int
    path: str

    @property
    def rows(self) -> torch.Tensor:
        """The weight of vLLM itself."""
        return self.head.rows

    @functools.cached_property
    def max_rows(self) -> int:
        """As measured, by what runs it and how long the dense head takes."""
        if self.path == "triton":
            import torch

            device = torch.cuda.get_device_properties(self.rows.device)
            if is_small(self.rows.nbytes, peak_bandwidth(device)):
                return 0
        return MAX_ROWS[self.path]

    def score(self, states: torch.Tensor) -> Scored:
        """Both stages."""
        import torch

        from flashhead_edge.kernels import operators

        if isinstance(self.centroids, torch.Tensor):
            products = torch.addmm(self.bias, states.float(), self.centroids.T)
        else:
            products = operators.score_clusters(self.centroids, states)
        head, columns = self.head, self.columns
        estimates = operators.open_clusters(head, columns, products, self.selection_offset, self.num_probes)
        exact, best = operators.score_opened(head, states, estimates, self.num_probes)
        return Scored(exact, best, estimates)

    def fill(self, scored: Scored, best: torch.Tensor) -> torch.Tensor:
        """All columns."""
        from flashhead_edge.kernels import operators

        return operators.spread_logits(self.head, self.columns, scored.exact, best, scored.estimates)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Of this device alone."""
        return self._logits(states)

    @functools.cached_property
    def _logits(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """On GPUs replayed, which costs the host one launch instead of many."""
        if self.path == "triton":
            from flashhead_edge.kernels.recording import RecordedLogits

            return RecordedLogits(self._compute, self.rows)
        return self._compute

    def prepare(self, most: int) -> None:
        """Run Triton's kernels once for each number of states that they are compiled for."""
        if self.path == "triton":
            for count in sorted({min(1 << power, most) for power in range(6)}):
                self._compute(self.rows.new_zeros(count, self.rows.shape[1]))

    def _compute(self, states: torch.Tensor) -> torch.Tensor:
        scored = self.score(states)
        return self.fill(scored, scored.best)
