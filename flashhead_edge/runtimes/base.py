"""The protocol that every runtime of a two-stage head follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import OptionError

if TYPE_CHECKING:
    from flashhead_edge.manifest import Manifest


class HeadOutput(NamedTuple):
    """What a head says of B states; the contract of ``head.onnx``.

    Attributes:
        token_ids: Greedy tokens, ties to the lowest id, [B] int64.
        candidate_ids: Ids scored exactly, -1 for padding, [B, M] int64; no id stands twice in a row.
        candidate_logits: Their logits after scale and soft-cap, -inf for padding, [B, M] float32.
        cluster_scores: Scores of all clusters in the units of the logits, [B, K] float32.
    """

    token_ids: npt.NDArray[np.int64]
    candidate_ids: npt.NDArray[np.int64]
    candidate_logits: npt.NDArray[np.float32]
    cluster_scores: npt.NDArray[np.float32]

    def row(self, row: int) -> HeadOutput:
        """What the head says of one state, B = 1."""
        part = slice(row, row + 1)
        return HeadOutput(
            self.token_ids[part], self.candidate_ids[part], self.candidate_logits[part], self.cluster_scores[part]
        )


class StepOutput(NamedTuple):
    """What a decoding step says of N scored positions.

    Attributes:
        head: The head's outputs, N rows.
        hidden_states: The states that the head saw, [N, H] float32.
    """

    head: HeadOutput
    hidden_states: npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeadShape:
    """Sizes of a two-stage head.

    Attributes:
        vocab_size: V.
        hidden_size: H.
        num_clusters: K.
        cluster_size: C.
        num_probes: P.
        num_candidates: M = P * C + A.
    """

    vocab_size: int
    hidden_size: int
    num_clusters: int
    cluster_size: int
    num_probes: int
    num_candidates: int

    @classmethod
    def of_bundle(cls, manifest: Manifest) -> HeadShape:
        """Read the sizes from a manifest."""
        index = manifest.index
        return cls(
            manifest.vocab_size,
            manifest.hidden_size,
            index.num_clusters,
            index.cluster_size,
            index.num_probes,
            index.num_probes * index.cluster_size + index.always_scored,
        )

    def check_states(self, hidden_states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Refuse anything but [B, H] floats with B >= 1.

        Args:
            hidden_states: What a caller gave.

        Returns:
            The same as contiguous float32.

        Raises:
            OptionError: Shape or type is wrong.
        """
        states = np.asarray(hidden_states)
        if states.ndim != 2 or states.shape[1] != self.hidden_size or not len(states) or states.dtype.kind != "f":
            raise OptionError(
                "The hidden states do not fit the head.",
                found=f"{states.dtype.name} of shape {list(states.shape)}",
                expected=f"float32 of shape [B, {self.hidden_size}] with B >= 1",
            )
        return np.ascontiguousarray(states, dtype=np.float32)


class HeadRuntime(Protocol):
    """Executes a two-stage head.

    Attributes:
        name: Name of the runtime in the registry, such as "onnxruntime".
        shape: Sizes of the head.
        providers: What executes it, most preferred first, such as "CPUExecutionProvider".
    """

    name: str
    shape: HeadShape
    providers: tuple[str, ...]

    def run(self, hidden_states: npt.NDArray[np.float32]) -> HeadOutput:
        """Score states.

        Args:
            hidden_states: Outputs of the final norm, [B, H] float32.

        Returns:
            Tokens, candidates and cluster scores.

        Raises:
            OptionError: The states do not fit the head.
        """
