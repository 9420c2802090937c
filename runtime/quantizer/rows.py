"""Rows of a tensor: reading them, encoding them one by one, and what that costs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from iqrun import formats
from iqrun.errors import QuantizeError
from iqrun.formats import Effort, Format
from iqrun.gguf import GGUFFile, TensorInfo
from iqrun.quantizer.gain import unbias
from iqrun.quantizer.jobs import Bytes, Floats


def read_weights(source: GGUFFile, tensor: TensorInfo, first: int, last: int) -> Floats:
    """Rows ``first`` to ``last`` (exclusive) of a tensor, float32; the file's pages are let go.

    Raises:
        QuantizeError: a weight is NaN or infinite.
    """
    try:
        return read_rows(source, tensor, slice(first, last))
    finally:
        source.release_rows(tensor.name, first, last)


def read_rows(source: GGUFFile, tensor: TensorInfo, rows: slice | npt.NDArray[np.int64]) -> Floats:
    """Some rows of a tensor, float32.

    Raises:
        QuantizeError: a weight is NaN or infinite.
    """
    assert tensor.format is not None
    weights = formats.decode(source.tensor_rows(tensor.name)[rows], tensor.format, tensor.n_cols, n_threads=1)
    finite = np.isfinite(weights)
    if finite.all():
        return weights
    row, column = np.argwhere(~finite)[0]
    where = f"{weights[row, column]} at row {np.arange(tensor.n_rows)[rows][row]}, column {column}"
    raise QuantizeError(f"{source.path}: tensor {tensor.name!r} holds {where}: the model is damaged; get it again")


def encode_rows(weights: Floats, target: Format, importance: Floats | None, effort: Effort) -> tuple[Bytes, Floats]:
    """Rows as they go into a file, and what they decode to."""
    n_cols = weights.shape[1]
    data = formats.encode(weights, target, importance, effort, n_threads=1)
    decoded = formats.decode(data, target, n_cols, n_threads=1)
    if unbias(data, target, weights, decoded, importance):
        decoded = formats.decode(data, target, n_cols, n_threads=1)
    return data, decoded


def squared_error(weights: Floats, decoded: Floats, importance: Floats | None) -> tuple[float, float]:
    """Sums of w (x - y)^2 and w x^2, in double precision."""
    error = np.square(np.subtract(decoded, weights), dtype=np.float64).sum(axis=0)
    norm = np.square(weights, dtype=np.float64).sum(axis=0)
    if importance is None:
        return float(error.sum()), float(norm.sum())
    return float(error @ importance), float(norm @ importance)
