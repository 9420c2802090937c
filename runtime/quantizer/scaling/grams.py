"""Second-moment matrices of a scaled model's inputs."""

from __future__ import annotations

from os import PathLike

import numpy as np
import numpy.typing as npt

from iqrun.quantizer.grams import GramFile
from iqrun.quantizer.scaling.factors import Scaling


class ScaledGrams(GramFile):
    """A full importance matrix of the original, read as one of its scaled copy."""

    def __init__(self, path: str | PathLike[str], scaling: Scaling) -> None:
        """As `GramFile`; `scaling` is that of the copy."""
        self._scaling = scaling
        super().__init__(path)

    def of(self, name: str) -> npt.NDArray[np.float32] | None:
        """As `GramFile.of`, for inputs divided by the factors of their columns."""
        gram, factors = super().of(name), self._scaling.columns.get(name)
        if gram is None or factors is None or len(factors) != len(gram):
            return gram
        return (gram / factors[:, None] / factors).astype(np.float32)
