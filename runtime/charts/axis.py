"""The scale of an axis, linear or logarithmic, and where its ticks stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to places.

    Attributes:
        title: what is measured, with its unit.
        low, high: the ends; both positive on a logarithmic axis.
        log: whether equal ratios, instead of equal differences, are equally far apart.
        whole: ticks stand at whole numbers only.
    """

    title: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @classmethod
    def around(cls, title: str, values: Iterable[float], *, log: bool = False, whole: bool = False) -> Axis:
        """An axis on which all values have some room.

        Args:
            title: what is measured.
            values: those that are not finite, or that a logarithmic axis cannot show (0 and below), do not count.
            log: see the class.
            whole: see the class.
        """
        shown = [value for value in values if isfinite(value) and (value > 0 or not log)]
        low, high = (min(shown), max(shown)) if shown else (1.0, 2.0)
        if log:
            room = max((high / low) ** 0.06, 1.15)
            return cls(title, low / room, high * room, log)
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(title, low - room, high + room, whole=whole)

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`; what a logarithmic axis cannot show stands at its beginning."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        return (log10(max(value, self.low)) - log10(self.low)) / (log10(self.high) - log10(self.low))

    def ticks(self, n: int = 6) -> list[float]:
        """Round values between the ends, about `n` of them."""
        if self.log:
            return _log_ticks(self.low, self.high, n)
        return _linear_ticks(self.low, self.high, n, least=1.0 if self.whole else 0.0)


def label(value: float) -> str:
    """A tick's value as short as it can be told: ``0.002``, ``1.5``, ``12k``."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.10f}".rstrip("0").rstrip(".") if 1e-4 <= abs(value) < 1 else f"{value:g}"


def _linear_ticks(low: float, high: float, n: int, least: float = 0.0) -> list[float]:
    rough = max((high - low) / n, least)
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [round(k * step, 12) for k in range(ceil(low / step), floor(high / step) + 1)]


def _log_ticks(low: float, high: float, n: int) -> list[float]:
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        shown = [round(value, 12) for value in found if low <= value <= high]
        if len(shown) >= n - 1:
            return shown
    return shown if len(shown) >= 3 else _linear_ticks(low, high, n)
