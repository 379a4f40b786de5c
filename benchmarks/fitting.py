"""Fits the few coefficients of predictions to measured or published times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from flashhead_edge.prediction.coefficients import Coefficients

#: What a case takes by the coefficients, and what it took, milliseconds.
Case = tuple[Callable[[Coefficients], float], float]
_FIRST_STEP, _LAST_STEP = 0.3, 0.002


def fit_coefficients(cases: Sequence[Case], start: Coefficients, names: Sequence[str]) -> Coefficients:
    """Change coefficients one at a time while the mean square error of the logarithm falls.

    Args:
        cases: What is fitted to.
        start: Where to begin.
        names: Which coefficients may change. Shares of a limit stay below it.

    Returns:
        The coefficients, rounded to three digits.
    """
    best, error, step = start, mean_error(cases, start), _FIRST_STEP
    while step > _LAST_STEP:
        moved = False
        for name in names:
            for factor in (1 + step, 1 / (1 + step)):
                value = getattr(best, name) * factor
                bounded = name.endswith("_share") and name != "copy_share"
                candidate = replace(best, **{name: min(value, 1.0) if bounded else value})
                found = mean_error(cases, candidate)
                if found < error - 1e-9:
                    best, error, moved = candidate, found, True
        if not moved:
            step /= 2
    return replace(best, **{name: float(f"{getattr(best, name):.3g}") for name in names})


def mean_error(cases: Sequence[Case], coefficients: Coefficients) -> float:
    """Root of the mean square of the logarithm of predicted against found."""
    return float(np.sqrt(np.mean([np.log(predict(coefficients) / found) ** 2 for predict, found in cases])))


def ratio_errors(ratios: Sequence[float]) -> dict[str, float]:
    """How far ratios of predicted to found are from 1: median, 90th percentile and greatest."""
    errors = np.abs(np.array(ratios) - 1)
    return {
        "cases": len(ratios),
        "median": round(float(np.median(errors)), 3),
        "p90": round(float(np.percentile(errors, 90)), 3),
        "greatest": round(float(errors.max()), 3),
    }
