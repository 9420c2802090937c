"""Second-moment matrices ``X^T X`` of the inputs of matrices, as stored in a full importance matrix.

A tensor ``NAME.in_gram`` is F32 and flat: the upper triangle row after row, ``n (n + 1) / 2`` values::

    g[0,0] g[0,1] ... g[0,n-1]   g[1,1] ... g[1,n-1]   ...   g[n-1,n-1]

Matrices that share their input share one triangle: the string arrays ``iqrun.imatrix.gram.tensors`` and
``iqrun.imatrix.gram.sources`` pair each tensor with the NAME whose triangle is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isqrt
from os import PathLike, fsdecode
from types import TracebackType

import numpy as np
import numpy.typing as npt

from iqrun.errors import QuantizeError
from iqrun.gguf import GGUFFile, keys

Floats = npt.NDArray[np.float32]

SUFFIX = ".in_gram"


def triangle_size(n: int) -> int:
    """Values in the upper triangle of an n x n matrix."""
    return n * (n + 1) // 2


def triangle_rows(n: int) -> Iterator[tuple[int, slice]]:
    """The rows of a triangle: the row's index, and where it stands in the flat values."""
    start = 0
    for row in range(n):
        yield row, slice(start, start + n - row)
        start += n - row


def pack(gram: Floats) -> Floats:
    """The upper triangle of a square matrix, flat."""
    flat = np.empty(triangle_size(len(gram)), np.float32)
    for row, place in triangle_rows(len(gram)):
        flat[place] = gram[row, row:]
    return flat


def unpack(flat: Floats) -> Floats:
    """The symmetric matrix of a triangle.

    Raises:
        ValueError: the length is not that of a triangle.
    """
    n = (isqrt(8 * flat.size + 1) - 1) // 2
    if triangle_size(n) != flat.size:
        raise ValueError(f"{flat.size} values are not the triangle of any matrix")
    gram = np.empty((n, n), np.float32)
    for row, place in triangle_rows(n):
        gram[row, row:] = flat[place]
        gram[row:, row] = flat[place]
    return gram


class GramFile:
    """The second-moment matrices of a full importance matrix, read one at a time.

    Example:
        >>> with GramFile("full.gguf") as grams:
        ...     hessian = grams.of("blk.0.attn_q.weight")

    Attributes:
        sources: per tensor the name under which its triangle is stored.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """Opens the file; one without second-moment matrices has no `sources`.

        Raises:
            GGUFError: it is no GGUF file, or a damaged one.
            QuantizeError: its table of second-moment matrices is wrong.
        """
        self.path = fsdecode(path)
        self._file = GGUFFile(path)
        try:
            self.sources: Mapping[str, str] = self._read_sources()
        except BaseException:
            self.close()
            raise

    def of(self, name: str) -> Floats | None:
        """``X^T X`` of the input of a tensor, float32 ``(n_cols, n_cols)``, summed over all tokens; None if absent.

        Raises:
            QuantizeError: it holds a value that is not finite.
        """
        if name not in self.sources:
            return None
        gram = unpack(self.triangle(name))
        if not np.isfinite(gram).all():
            raise self._error(f"the second-moment matrix of {name!r} holds NaN or infinity")
        return gram

    def triangle(self, name: str) -> Floats:
        """The stored values of a tensor's triangle: a read-only view of the file."""
        return self._file.tensor_bytes(self.sources[name] + SUFFIX).view(np.float32)

    def __enter__(self) -> GramFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file; safe to call twice."""
        self._file.close()

    def _read_sources(self) -> dict[str, str]:
        tensors = list(self._file.metadata.get_array(keys.GRAM_TENSORS, "str", ()))
        sources = list(self._file.metadata.get_array(keys.GRAM_SOURCES, "str", ()))
        if len(tensors) != len(sources):
            raise self._error(f"its table pairs {len(tensors)} tensors with {len(sources)} second-moment matrices")
        for source in sources:
            info = self._file.tensors.get(source + SUFFIX)
            n = 0 if info is None else (isqrt(8 * info.n_weights + 1) - 1) // 2
            if info is None or info.type.name != "F32" or triangle_size(n) != info.n_weights:
                raise self._error(f"{source + SUFFIX!r} is missing, not F32 or not a triangle")
        return dict(zip(tensors, sources, strict=True))

    def _error(self, what: str) -> QuantizeError:
        return QuantizeError(f"{self.path}: {what}; compute the importance matrix again")
