"""How far int8 states should reach, from calibration states."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MOST_STATES = 1024
#: Shares of the greatest magnitude that are tried.
_SHARES = np.linspace(0.1, 1.0, 37, dtype=np.float32)


def best_state_bound(states: npt.NDArray[np.float32]) -> float:
    """The bound at which rounding states to int8, and cutting off what is larger, has the least squared error.

    A few dimensions of a language model's states are many times larger than the rest: the greatest magnitude as bound
    would leave the rest few codes.

    Args:
        states: [N, H] float32; at most 1,024 of them are looked at, evenly spread.

    Returns:
        A positive magnitude.
    """
    some = states[:: -(-len(states) // _MOST_STATES) or 1].astype(np.float32)
    greatest = np.abs(some).max(initial=0)
    if greatest == 0:
        return 1.0
    errors = []
    for share in _SHARES:
        scale = share * greatest / np.float32(127)
        rounded = np.clip(np.rint(some / scale), -128, 127) * scale
        errors.append(float(np.square(rounded - some).mean()))
    return float(_SHARES[int(np.argmin(errors))] * greatest)
