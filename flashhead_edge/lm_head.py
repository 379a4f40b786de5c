"""The LM head of a model: its rows and what is done to their dot products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from flashhead_edge.errors import WeightError


@dataclass(frozen=True)
class LmHead:
    """What turns a final hidden state into logits: ``softcap(scale * (rows @ h + bias))``.

    Attributes:
        rows: Vocabulary rows, [V, H] float32.
        bias: Added to the dot products before scaling, [V] float32, or None.
        logit_scale: Factor on the logits (Cohere's ``logit_scale``, one over Granite's ``logits_scaling``).
        logit_softcap: ``cap`` in ``cap * tanh(logits / cap)`` (Gemma 2), or None.
        tied: Whether the input embedding is the same matrix.
    """

    rows: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None = None
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    tied: bool = False

    @property
    def vocab_size(self) -> int:
        """V, the number of rows."""
        return int(self.rows.shape[0])

    @property
    def hidden_size(self) -> int:
        """H, the length of a row."""
        return int(self.rows.shape[1])

    @cached_property
    def parameter_bytes_fp16(self) -> int:
        """Bytes of the rows in half precision, what a dense fp16 head reads in a step."""
        return self.vocab_size * self.hidden_size * 2

    def activate(self, products: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Apply scale and soft-cap to dot products (bias included) of any shape.

        Args:
            products: ``rows @ h + bias``, float32.

        Returns:
            Logits of the same shape, float32.
        """
        logits = products if self.logit_scale == 1.0 else products * np.float32(self.logit_scale)
        if self.logit_softcap is not None:
            cap = np.float32(self.logit_softcap)
            logits = cap * np.tanh(logits / cap)
        return logits

    def check_finite(self, *, chunk: int = 16384, show: int = 8) -> None:
        """Refuse rows that hold NaN or infinity.

        Raises:
            WeightError: Names the first offending rows and counts all of them.
        """
        bad: list[int] = []
        for start in range(0, self.vocab_size, chunk):
            block = self.rows[start : start + chunk]
            # A sum is finite exactly when every term is (or it overflowed, which the second look settles).
            with np.errstate(invalid="ignore"):  # infinities of both signs
                suspects = np.flatnonzero(~np.isfinite(block.sum(axis=1, dtype=np.float64)))
            bad.extend(int(start + i) for i in suspects if not np.isfinite(block[i]).all())
        if self.bias is not None:
            bad.extend(int(i) for i in np.flatnonzero(~np.isfinite(self.bias)))
        if bad:
            rows = sorted(set(bad))
            shown = ", ".join(map(str, rows[:show])) + (f" and {len(rows) - show} more" if len(rows) > show else "")
            raise WeightError(
                "The head holds numbers that are not finite.",
                found=f"NaN or infinity in {len(rows)} of {self.vocab_size} rows: {shown}",
                expected="finite weights",
                hint="the checkpoint is damaged or was saved after a diverged training step; take another one",
            )
