"""Sums of squared activations per input column of a matrix: what an importance matrix is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

# A column whose mean square is this small against the average column's carries nothing.
_DEAD = 1e-6


@dataclass(frozen=True, slots=True)
class Moments:
    """What was counted for one tensor.

    Attributes:
        sums: sums of squares, float64 ``(n_matrices, n_cols)``; n_matrices is 1, or the number of experts.
        counts: rows (tokens) summed, float64 ``(n_matrices,)``.
    """

    sums: Doubles
    counts: Doubles

    @property
    def mean_square(self) -> Doubles:
        """Mean squared activation per column, ``(n_matrices, n_cols)``; zeros for a matrix that was never used."""
        means: Doubles = self.sums / np.maximum(self.counts, 1)[:, None]
        return means

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.sums + other.sums, self.counts + other.counts)


@dataclass(frozen=True, slots=True)
class TensorStatistics:
    """How the energy of a tensor's input is spread over its columns.

    Attributes:
        name: the tensor.
        n_cols: columns counted; with experts, those of all experts.
        sum_of_squares: the mean square of each column, summed: the mean squared length of an input row.
        activation_norm: its root, the typical length of an input row.
        entropy: of the columns' shares of the energy, over its maximum log2(n_cols): 1 = all columns alike.
        dead: share of the columns with less than a millionth of the average energy.
        sensitivity: how much the model's predictions suffer from a relative error in the tensor, in proportion to the
            others; None if the weights are not known.
    """

    name: str
    n_cols: int
    sum_of_squares: float
    activation_norm: float
    entropy: float
    dead: float
    sensitivity: float | None = None


def statistics(
    moments: Mapping[str, Moments], sensitivity: Mapping[str, float] | None = None
) -> list[TensorStatistics]:
    """Statistics of every tensor, the most sensitive first.

    Args:
        moments: what was counted.
        sensitivity: from `sensitivities`, if the weights are at hand; without it the strongest input comes first, as
            errors in its weights are amplified most.
    """
    known = {} if sensitivity is None else sensitivity
    rows = [_statistics(name, entry.mean_square.reshape(-1), known.get(name)) for name, entry in moments.items()]
    return sorted(rows, key=lambda row: (-(row.sensitivity or 0.0), -row.sum_of_squares, row.name))


def _statistics(name: str, energy: Doubles, sensitivity: float | None) -> TensorStatistics:
    total = float(energy.sum())
    share = energy[energy > 0] / total if total > 0 else np.ones(1)
    bits = float(-(share * np.log2(share)).sum())
    return TensorStatistics(
        name=name,
        n_cols=energy.size,
        sum_of_squares=total,
        activation_norm=total**0.5,
        entropy=bits / np.log2(energy.size) if energy.size > 1 else 1.0,
        dead=float((energy <= _DEAD * energy.mean()).mean()),
        sensitivity=sensitivity,
    )
