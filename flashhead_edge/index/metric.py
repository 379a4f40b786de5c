"""The metric in which rows are clustered: how much a change of a row changes the logits of real states.

Scoring token i by a centroid c errs by ``(w_i - c) . h``. Over states h its mean square is ``(w_i - c)' S (w_i - c)``
with the second moment ``S = E[h h']`` (not centred: the mean state matters). Rows are therefore clustered as
``x_i = R' w_i`` with ``S = R R'``. Two changes make this robust to calibration states that do not cover everything:
only the leading eigen-directions are kept, and their scale is tempered to ``eigenvalue ** (alpha / 2)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Least eigenvalue of a direction that is kept, as a part of the greatest.
_LEAST = 1e-7


@dataclass(frozen=True)
class ActivationMetric:
    """Eigen-directions of the calibration states' second moment.

    Attributes:
        directions: Orthonormal columns, leading first, [H, r] float32.
        eigenvalues: Mean squares of the states along them, [r] float32.
    """

    directions: torch.Tensor
    eigenvalues: torch.Tensor

    def leading(self, rank: int) -> ActivationMetric:
        """The metric of the first directions alone."""
        return ActivationMetric(self.directions[:, :rank], self.eigenvalues[:rank])

    def tempered(self, alpha: float) -> torch.Tensor:
        """Projection [H, r] float32 whose axes are scaled by ``eigenvalue ** (alpha / 2)``, largest scale one."""
        scale = (self.eigenvalues / self.eigenvalues[0]).clamp(min=0) ** (alpha / 2)
        return self.directions * scale


def activation_metric(states: torch.Tensor, rank: int) -> ActivationMetric:
    """Find the leading eigen-directions of ``E[h h']``.

    Args:
        states: Calibration states, [N, H] float32.
        rank: Directions to keep; fewer are kept when N or H is smaller.

    Returns:
        The metric, on the states' device.
    """
    import torch

    count, width = states.shape
    exact = states.double()  # in single precision, directions that no state has are not told from rounding everywhere
    if count < width:
        # The Gram matrix has the same nonzero eigenvalues and is smaller.
        values, vectors = torch.linalg.eigh((exact @ exact.T) / count)
        values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
        keep = values > values[0] * _LEAST
        values, vectors = values[keep], vectors[:, keep]
        directions = exact.T @ vectors / (values * count).sqrt()
    else:
        values, vectors = torch.linalg.eigh((exact.T @ exact) / count)
        values, directions = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
        keep = values > values[0] * _LEAST
        values, directions = values[keep], directions[:, keep]
    return ActivationMetric(directions.float().contiguous(), values.float().contiguous())
