"""How often a two-stage head says what the dense head says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flashhead_edge.index.dense import dense_argmax
from flashhead_edge.lm_head import LmHead
from flashhead_edge.progress import Progress, no_progress
from flashhead_edge.runtimes.base import HeadRuntime

#: States in a run of the head: its candidates are gathered for each, some 20 MB a state.
_STATES_AT_ONCE = 8


def measure_agreement(
    head: LmHead,
    runtime: HeadRuntime,
    states: npt.NDArray[np.float32],
    *,
    progress: Progress = no_progress,
) -> tuple[float, float]:
    """Run a head over states and compare its tokens with the dense head's.

    Args:
        head: The dense head, the truth.
        runtime: The two-stage head, really run.
        states: [N, H] float32.
        progress: Told of every batch.

    Returns:
        Containment (share of states whose dense token is a candidate) and agreement (share whose token is the same).
    """
    import torch

    tokens = dense_argmax(head, torch.from_numpy(states), progress=progress).numpy()
    contained = agreed = 0
    for start in range(0, len(states), _STATES_AT_ONCE):
        output = runtime.run(states[start : start + _STATES_AT_ONCE])
        truth = tokens[start : start + _STATES_AT_ONCE]
        contained += int((output.candidate_ids == truth[:, None]).any(axis=1).sum())
        agreed += int((output.token_ids == truth).sum())
        progress("running the two-stage head", min(start + _STATES_AT_ONCE, len(states)), len(states))
    return contained / len(states), agreed / len(states)
