"""Numbers to places on an axis, and the numbers that are written at it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: Number at its beginning.
        high: Number at its end.
        start: Pixel of the beginning.
        end: Pixel of the end.
        is_log: Equal ratios, not equal differences, are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a number."""
        if self.is_log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers on the axis, ``most`` of them or fewer."""
        return _log_ticks(self.low, self.high, most) if self.is_log else _even_ticks(self.low, self.high, most)


def scale_of(
    values: Sequence[float], start: float, end: float, *, is_log: bool = False, zero: bool = False, margin: float = 0.06
) -> Scale:
    """An axis on which all values have room.

    Args:
        values: Numbers to show; positive ones for a logarithmic axis.
        start: Pixel of the beginning.
        end: Pixel of the end.
        is_log: Whether ratios count.
        zero: Whether the axis begins at zero.
        margin: Room beyond the least and greatest value, as a share of their distance.
    """
    low, high = min(values), max(values)
    if is_log:
        room = (high / low) ** margin if high > low else 1.5
        return Scale(low / room, high * room, start, end, is_log=True)
    room = margin * (high - low) or abs(high) * margin or 1.0
    return Scale(0.0 if zero else low - room, high + room, start, end)


def short(value: float) -> str:
    """A number for an axis: 0.5, 12, 32k (of 1,024), 1.5M."""
    for unit, name in ((1 << 20, "M"), (1 << 10, "k")):
        if value >= unit and value % (unit / 4) == 0:
            return f"{value / unit:g}{name}"
    if value >= 1e5:
        return f"{value / 1e3:.0f} k"
    return f"{value:.4g}"


def _even_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten."""
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """1, 2 and 5 times powers of ten, or fewer of them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]
