"""What is to be done with each tensor, and the pieces that it is done in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from iqrun.formats import Format
from iqrun.quantizer.recipes import Choice

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class MatrixEncoder(Protocol):
    """Encodes whole matrices, for methods that want more than a few rows and the importance of their columns.

    A matrix too large for memory comes in bands of rows, one after the other. Small ones may come from several threads
    at once.
    """

    @property
    def identity(self) -> str:
        """What its bytes depend on besides the arguments: a run is resumed with the same only."""

    def handles(self, choice: Choice) -> bool:
        """Whether it encodes this tensor; the others are encoded row by row.

        It is asked once about every tensor to encode, in file order, before the first is encoded; the choice is final.
        """

    def __call__(
        self, name: str, matrix: int, first: int, weights: Floats, target: Format, importance: Floats | None
    ) -> Bytes:
        """Encodes a matrix, or a band of its rows.

        Args:
            name: the tensor.
            matrix: 0, or the index of the expert.
            first: index of the band's first row in the matrix.
            weights: float32 (n_rows, n_cols), finite; the callee may overwrite them.
            target: the type to encode to.
            importance: float32 (n_cols,), or None.

        Returns:
            uint8 (n_rows, row_bytes); its scales are final.
        """


@dataclass(frozen=True)
class Job:
    """A tensor to convert.

    Attributes:
        choice: what it becomes.
        importance: float32 (n_matrices, n_cols), or None.
        encoder: encodes it in place of the row encoder.
    """

    choice: Choice
    importance: Floats | None
    encoder: MatrixEncoder | None = None

    @property
    def n_bytes(self) -> int:
        """Size of the tensor in the new file."""
        tensor, target = self.choice.tensor, self.choice.target
        return tensor.n_bytes if target is None else tensor.n_rows * target.row_bytes(tensor.n_cols)

    @property
    def n_matrices(self) -> int:
        """Number of matrices that are encoded apart: 1, or that of the experts."""
        shape = self.choice.tensor.shape
        separate = self.importance is not None or self.encoder is not None
        return shape[2] if separate and len(shape) > 2 else 1


@dataclass(frozen=True)
class Piece:
    """Rows ``first`` to ``last`` (exclusive) of a job, all with the same importance."""

    job: Job
    first: int
    last: int

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return (self.last - self.first) * self.job.choice.tensor.n_cols

    @property
    def matrix(self) -> int:
        """Which of the job's matrices it belongs to."""
        return self.first // (self.job.choice.tensor.n_rows // self.job.n_matrices)

    @property
    def first_in_matrix(self) -> int:
        """Index of its first row in that matrix."""
        return self.first % (self.job.choice.tensor.n_rows // self.job.n_matrices)

    @property
    def is_end(self) -> bool:
        """Whether the tensor ends with it."""
        return self.last == self.job.choice.tensor.n_rows

    def importance(self) -> Floats | None:
        """The importance of its columns, float32 (n_cols,)."""
        return None if self.job.importance is None else self.job.importance[self.matrix]
