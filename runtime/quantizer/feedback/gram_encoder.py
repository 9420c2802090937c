"""Error feedback from a full importance matrix: each matrix for itself."""

from __future__ import annotations

import hashlib
from threading import Lock

from iqrun.errors import QuantizeError
from iqrun.formats import Effort, Format
from iqrun.quantizer.feedback.factors import Floats, damped
from iqrun.quantizer.feedback.rows import Bytes, FeedbackRows, has_feedback
from iqrun.quantizer.grams import GramFile
from iqrun.quantizer.recipes import Choice


class GramEncoder:
    """For `iqrun.quantize`: encodes the matrices of which a full importance matrix knows the inputs.

    Matrices with the same input and the same type share one factorization as long as they come one after the other.
    """

    def __init__(self, grams: GramFile, effort: Effort, n_threads: int) -> None:
        """`grams` stays open as long as this encodes.

        Raises:
            QuantizeError: the file holds no second-moment matrices.
        """
        if not grams.sources:
            raise QuantizeError(
                f"{grams.path} holds no second-moment matrices, which error feedback needs: compute it with --full"
            )
        self._grams, self._effort, self._n_threads = grams, effort, n_threads
        self._lock = Lock()
        self._key: tuple[str, Format] | None = None
        self._rows: FeedbackRows | None = None

    @property
    def identity(self) -> str:
        """The method and the matrices."""
        digest = hashlib.sha256()
        for name in sorted(set(self._grams.sources.values())):
            digest.update(name.encode("utf-8", "surrogateescape"))
            digest.update(self._grams.triangle(name)[: 1 << 16].tobytes())
        return f"feedback {self._effort} {digest.hexdigest()}"

    def handles(self, choice: Choice) -> bool:
        """Whether the inputs of this tensor are known, and its type is encoded so."""
        tensor, target = choice.tensor, choice.target
        if target is None or target is tensor.format or len(tensor.shape) > 2:
            return False
        return tensor.name in self._grams.sources and has_feedback(target)

    def __call__(
        self, name: str, matrix: int, first: int, weights: Floats, target: Format, importance: Floats | None
    ) -> Bytes:
        """As `iqrun.quantizer.jobs.MatrixEncoder`."""
        with self._lock:
            return self._rows_of(name, target, weights.shape[1]).encode(weights)

    def _rows_of(self, name: str, target: Format, n_cols: int) -> FeedbackRows:
        key = self._grams.sources[name], target
        if self._rows is None or key != self._key:
            self._rows = None  # its memory is needed for the next one
            self._rows = FeedbackRows(self._damped(name, n_cols), target, self._effort, self._n_threads)
            self._key = key
        return self._rows

    def _damped(self, name: str, n_cols: int) -> Floats:
        gram = self._grams.of(name)
        assert gram is not None
        if len(gram) != n_cols:
            raise QuantizeError(
                f"{self._grams.path}: the second-moment matrix of {name!r} is for {len(gram)} columns, "
                f"the tensor has {n_cols}: it was computed from another model"
            )
        try:
            return damped(gram)
        except ValueError as error:
            raise QuantizeError(f"{self._grams.path}: {name!r}: {error}; compute it again") from error
