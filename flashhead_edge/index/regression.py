"""Affine predictions of many targets from the same states: ridge regression, and one that looks where it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Iterations of conjugate gradients; more change containment by less than the seed does.
_ITERATIONS = 2
#: States taken together where a weight is needed for every state and target.
_STATES_AT_ONCE = 1024


class StateRegression:
    """Least squares over N states (h, u), u being their mean norm: coefficients [K, H + 1], the last one the bias / u.

    Args:
        states: [N, H] float32.
        prior_states: Weight of a prior's coefficients, as a number of states of average size.
    """

    def __init__(self, states: torch.Tensor, prior_states: float) -> None:
        import torch

        self.unit = float(states.norm(dim=1).mean())
        self.inputs = torch.cat([states, torch.full_like(states[:, :1], self.unit)], dim=1)
        moments = (self.inputs.T @ self.inputs).double()
        self._pull = float(prior_states * moments.diagonal().mean() / len(states))
        moments.diagonal().add_(self._pull)
        self._factor = torch.linalg.cholesky(moments)

    def fit(self, targets: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        """Ridge regression (Hoerl & Kennard, 1970), shrunk to a prior instead of to zero.

        Args:
            targets: [N, K] float32.
            prior: [K, H + 1] float32.

        Returns:
            [K, H + 1] float32.
        """
        return prior + self._solve((targets - self.predict(prior)).T @ self.inputs)

    def refit(
        self, targets: torch.Tensor, weights: torch.Tensor, prior: torch.Tensor, prior_weight: float
    ) -> torch.Tensor:
        """Weighted least squares, each target with weights of its own.

        Minimises ``sum_h w (target - x . c)^2`` and, ``prior_weight`` times, what :meth:`fit` would lose by leaving
        the prior, by conjugate gradient steps from there, preconditioned by the unweighted problem, which is
        factorised already (Golub & Van Loan, Matrix Computations, 4th ed., section 11.5). No step size, no randomness.

        Args:
            targets: [N, K] float32.
            weights: [N, K] float32, 0 to 1.
            prior: Coefficients to start from and stay near, [K, H + 1] float32.
            prior_weight: Weight of the prior at every state.

        Returns:
            [K, H + 1] float32.
        """
        import torch

        def gradient(coefficients: torch.Tensor) -> torch.Tensor:
            total = prior_weight * self._pull * coefficients
            for start in range(0, len(self.inputs), _STATES_AT_ONCE):
                rows = slice(start, start + _STATES_AT_ONCE)
                weighted = self.inputs[rows] @ coefficients.T
                total += (weighted.mul_(weights[rows] + prior_weight)).T @ self.inputs[rows]
            return total

        residual = ((targets - self.predict(prior)) * weights).T @ self.inputs
        change = torch.zeros_like(prior)
        ahead = self._solve(residual)
        direction = ahead
        decrease = (residual * ahead).sum(dim=1, keepdim=True)
        for _ in range(_ITERATIONS):
            along = gradient(direction)
            curvature = (direction * along).sum(dim=1, keepdim=True)
            step = torch.where(curvature > 0, decrease / curvature.clamp(min=1e-30), 0.0)
            change += step * direction
            residual = residual - step * along
            ahead = self._solve(residual)
            latest = (residual * ahead).sum(dim=1, keepdim=True)
            direction = ahead + torch.where(decrease > 0, latest / decrease.clamp(min=1e-30), 0.0) * direction
            decrease = latest
        return prior + change

    def predict(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Predictions for the states, [N, K]."""
        return self.inputs @ coefficients.T

    def _solve(self, moments: torch.Tensor) -> torch.Tensor:
        """Coefficients of the unweighted problem, [K, H + 1]."""
        import torch

        return torch.cholesky_solve(moments.double().T, self._factor).T.float().contiguous()
