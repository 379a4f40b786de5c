"""The part of a head that one device has: its tensors, and full-width logits from them.

On a CPU the native library does all of it, where it was compiled; GPUs run the Triton kernels, and everything else
plain torch.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from flashhead_edge import native
from flashhead_edge.kernels.head_tensors import CentroidTensors, HeadTensors, LogitColumns, activation_values
from flashhead_edge.quantize import quantize_rows
from flashhead_edge.runtimes.vllm.operator_shard import OperatorShard
from flashhead_edge.runtimes.vllm.reference_cache import scaled_to_rows
from flashhead_edge.runtimes.vllm.row_threshold import MAX_ROWS

if TYPE_CHECKING:
    import torch

    from flashhead_edge.index.head_index import HeadIndex
    from flashhead_edge.native.full_logits import Candidates, FullLogits

_logger = logging.getLogger("vllm.flashhead_edge")
#: Bits of stage 1.
_BITS = 8


class HeadShard(Protocol):
    """What the plugin asks of a device's part. Scale and soft-cap are left to vLLM, which applies them afterwards."""

    @property
    def path(self) -> str:
        """What runs it: "native", "torch" or "triton"."""

    @property
    def rows(self) -> torch.Tensor:
        """The weight of vLLM itself, [W, H]."""

    @property
    def max_rows(self) -> int:
        """Rows of a step up to which it is not slower than the dense head; 0 where it always is."""

    def score(self, states: torch.Tensor) -> Any:
        """Score states up to the point where devices must agree on the best logit.

        Args:
            states: [N, H], any floating type.

        Returns:
            What :meth:`fill` takes; its attribute ``best``, [N] float32, is the best exact logit on this device.
        """

    def fill(self, scored: Any, best: torch.Tensor) -> torch.Tensor:
        """Logits of all columns: exact ones of candidates, estimates of the others below the best logit of all devices.

        Args:
            scored: What :meth:`score` gave.
            best: The best exact logit over all devices, [N] float32.

        Returns:
            [N, W] in the type of the rows, -inf where no token is.
        """

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits of all columns where no other device has any.

        Args:
            states: [N, H], any floating type.

        Returns:
            [N, W] in the type of the rows, -inf where no token is.
        """

    def prepare(self, most: int) -> None:
        """Compile what there is to compile, so that no request waits for it.

        Args:
            most: States that will be scored at once.
        """


@dataclass(frozen=True)
class NativeShard:
    """A part that the native library scores.

    Attributes:
        rows: vLLM's own weight, [W, H].
        head: The head in the library.
    """

    rows: torch.Tensor
    head: FullLogits
    path: str = "native"

    @property
    def max_rows(self) -> int:
        """As measured."""
        return MAX_ROWS[self.path]

    def score(self, states: torch.Tensor) -> Candidates:
        """Both stages."""
        return self.head.candidates(states)

    def fill(self, scored: Candidates, best: torch.Tensor) -> torch.Tensor:
        """All columns."""
        return self.head.fill(scored, best)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Of this device alone."""
        scored = self.score(states)
        return self.fill(scored, scored.best)

    def prepare(self, most: int) -> None:
        """Nothing: the library is compiled."""


def build_shard(
    index: HeadIndex,
    rows: torch.Tensor,
    row_bias: torch.Tensor | None,
    first_token: int,
    num_tokens: int,
    probes: int,
    *,
    scale_centroids: bool = False,
) -> HeadShard:
    """Lay a head out on the device of its rows.

    Args:
        index: The index of the whole head.
        rows: The device's rows [W, H]: those of ``num_tokens`` tokens in order, then padding. Shared, not copied.
        row_bias: Bias of the rows, [W], or None.
        first_token: Id of the first row.
        num_tokens: Tokens that the device has.
        probes: P.
        scale_centroids: The index is of a folder for the reference plugin, whose centroids have no scale.
    """
    import torch

    if scale_centroids:
        index = scaled_to_rows(index, rows[:num_tokens], first_token)

    def place(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(rows.device)

    local = index.token_order - first_token
    local = np.where((index.token_order >= 0) & (local >= 0) & (local < num_tokens), local, -1).astype(np.int32)
    slots = np.full(len(rows), -1, dtype=np.int32)
    slots[:num_tokens] = index.slot_of_token[first_token : first_token + num_tokens]
    head = HeadTensors(
        rows=rows,
        token_order=place(local),
        num_clusters=index.num_clusters,
        activation=place(np.array(activation_values(dtype=rows.dtype), dtype=np.float32)),
        row_bias=None if row_bias is None else row_bias.float().contiguous(),
    )
    columns = LogitColumns(place(slots), place(np.zeros(index.num_clusters, dtype=np.float32)))
    codes = quantize_rows(index.centroids, _BITS)
    bias, offset = place(index.centroid_bias), place(index.selection_offset)
    quantized = CentroidTensors(place(codes.codes), place(codes.float_scales), bias, _BITS)
    if rows.device.type == "cuda":
        return OperatorShard(head, columns, quantized, bias, offset, probes, "triton")
    if rows.device.type == "cpu" and native.is_available():
        from flashhead_edge.native.full_logits import FullLogits

        return NativeShard(rows, FullLogits(head, columns, quantized, offset, probes))
    if rows.device.type == "cpu":
        _say_slow(native.unavailable_because())
    # Of the same codes, so that it opens the same clusters.
    return OperatorShard(head, columns, place(codes.dequantize()), bias, offset, probes, "torch")


@functools.cache
def _say_slow(reason: str | None) -> None:
    _logger.warning(
        "Plain torch runs the two-stage head, by default up to %d rows of a step, because the native library cannot be "
        "used: %s. What to do: install flashhead-edge where a C++ compiler is.",
        MAX_ROWS["torch"],
        reason,
    )
