"""What each tensor is multiplied by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from iqrun.gguf import TensorInfo
from iqrun.quantizer.imatrix import Imatrix
from iqrun.quantizer.scaling.pairs import Pair

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """Factors that leave a model's function as it is.

    Attributes:
        columns: by tensor name a factor for each column, ``(n_cols,)``; vectors (norms, biases) are columns.
        rows: by tensor name a factor for each row, ``(n_rows,)``.
    """

    columns: Mapping[str, Doubles]
    rows: Mapping[str, Doubles]

    @staticmethod
    def of(pairs: Sequence[Pair], factors: Sequence[Doubles], tensors: Mapping[str, TensorInfo]) -> Scaling:
        """From the ``(n_factors,)`` factors of each pair; a tensor consumes in one pair, and produces in one."""
        columns: dict[str, Doubles] = {}
        rows: dict[str, Doubles] = {}
        for pair, values in zip(pairs, factors, strict=True):
            columns |= dict.fromkeys(pair.consumers, values[pair.factor_of])
            for name in pair.producers:
                (columns if tensors[name].n_rows == 1 else rows)[name] = 1 / values
        return Scaling(columns, rows)

    @property
    def names(self) -> set[str]:
        """The tensors that change."""
        return {*self.columns, *self.rows}

    def apply(self, name: str, first: int, weights: Floats) -> Floats:
        """Rows of a tensor from `first` on, float32 ``(n_rows, n_cols)``, scaled."""
        scaled = weights.astype(np.float64)
        if name in self.columns:
            scaled *= self.columns[name]
        if name in self.rows:
            scaled *= self.rows[name][first : first + len(weights), None]
        return scaled.astype(np.float32)

    def imatrix(self, matrix: Imatrix) -> Imatrix:
        """The importance matrix of the scaled model: inputs are divided by what columns are multiplied with."""
        entries = {name: self._means(name, values) for name, values in matrix.entries.items()}
        return replace(matrix, entries=entries)

    def _means(self, name: str, values: Floats) -> Floats:
        return (values / self.columns[name] ** 2).astype(np.float32) if name in self.columns else values
