"""How states are rounded to int8 for a matrix product, from calibration states.

A few dimensions of a language model's states are a hundred times larger than the rest (Gemma 3 270M). A part of that
is moved into the rows, as in SmoothQuant (https://arxiv.org/abs/2211.10438, equation 4 with alpha 0.5): states are
divided by a number for each dimension, rows multiplied by it, and products stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MOST_STATES = 1024
#: Shares of the greatest magnitude that are tried.
_SHARES = np.linspace(0.1, 1.0, 37, dtype=np.float32)


@dataclass(frozen=True)
class Int8States:
    """How states become int8.

    Attributes:
        bound: Magnitude that becomes code 127, after the division; larger ones saturate.
        divisors: [H] float32, positive: states are divided by them, rows were multiplied.
    """

    bound: float
    divisors: npt.NDArray[np.float32]


def fit_int8_states(states: npt.NDArray[np.float32], rows: npt.NDArray[np.float32]) -> Int8States:
    """Divisors that share each dimension's size between states and rows, and the bound for what is left.

    Args:
        states: [N, H] float32, from calibration.
        rows: [R, H] float32, that states are multiplied with.
    """
    of_states, of_rows = np.abs(states).max(axis=0), np.abs(rows).max(axis=0)
    used = (of_states > 0) & (of_rows > 0)
    ratio = np.sqrt(np.divide(of_states, of_rows, out=np.ones_like(of_states), where=used))
    middle = np.exp(np.log(ratio).mean())  # so that rows keep their size
    divisors = (ratio / middle).astype(np.float32)
    return Int8States(best_state_bound(states / divisors), divisors)


def best_state_bound(states: npt.NDArray[np.float32]) -> float:
    """The bound at which rounding states to int8, and cutting off what is larger, has the least squared error.

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
