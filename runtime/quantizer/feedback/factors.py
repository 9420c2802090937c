"""A second-moment matrix H as error feedback wants it (`iqrun.h`, iq_feedback_rows; csrc/quantize/feedback.h).

``H = (F + 1) diag(D) (F + 1)^T`` with F above the diagonal: a Cholesky factorization from the last column to the first
(LDLQ, Chee et al. 2023). The loss of a row of errors e is then the sum over columns c of ``D[c] u[c]^2``, where
``u = e (F + 1)`` is known column after column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Reals = npt.NDArray[np.floating[Any]]

SUPERBLOCK = 256
DAMPING = 0.01  # of the mean of the diagonal: what a text does not show, another one may
_EXACT_COLS = 4096  # up to here in double precision; beyond, memory counts more, and damping has made it harmless


@dataclass(frozen=True)
class Factors:
    """What one pass needs: float32 `feedback` ``(n, n)`` and `curvature` ``(n,)``."""

    feedback: Floats
    curvature: Floats


def damped(gram: Reals, damping: float = DAMPING) -> Reals:
    """``X^T X`` scaled to a mean diagonal of 1, plus `damping` on the diagonal: positive definite.

    Args:
        gram: ``(n, n)``, symmetric, finite.
        damping: as a share of the mean of the diagonal.

    Raises:
        ValueError: the matrix is far from positive semidefinite: it is no sum of squares.
    """
    h = np.array(gram, np.float64 if len(gram) <= _EXACT_COLS else np.float32)
    mean = float(np.trace(h)) / len(h)
    if mean > 0:
        h /= mean
    for share in (damping, 10 * damping, 100 * damping):
        h[np.diag_indices_from(h)] += share
        try:
            np.linalg.cholesky(h)
        except np.linalg.LinAlgError:
            continue
        return h
    raise ValueError("the second-moment matrix is not positive definite")


def first_pass(h: Reals) -> Factors:
    """For codes from nothing, column after column."""
    feedback, curvature = _from_last(h)
    return Factors(feedback.astype(np.float32), curvature.astype(np.float32))


def later_pass(h: Reals) -> Factors:
    """For choosing one superblock again while all others stay."""
    n = len(h)
    feedback, curvature = np.empty((n, n), np.float32), np.empty(n, np.float32)
    for start in range(0, n, SUPERBLOCK):
        own = slice(start, start + SUPERBLOCK)
        feedback[:, own] = np.linalg.solve(h[own, own], h[own, :]).T
        feedback[own, own], curvature[own] = _from_last(h[own, own])
    return Factors(feedback, curvature)


def _from_last(h: Reals) -> tuple[Reals, Reals]:
    """F and D of H."""
    upper = np.linalg.cholesky(h[::-1, ::-1])[::-1, ::-1]
    diagonal = np.diag(upper).copy()
    return np.triu(upper / diagonal, 1), np.square(diagonal)
