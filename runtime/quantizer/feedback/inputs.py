"""What a matmul's inputs ask of its weights, in the model encoded so far beside the original (`sequential`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from iqrun.program import Op
from iqrun.quantizer.feedback.factors import Floats, Reals, damped
from iqrun.quantizer.feedback.walk import State


@dataclass(frozen=True)
class Inputs:
    """The inputs of one matmul, summed up.

    Attributes:
        h: ``y^T y``, damped and scaled (`factors.damped`), ``(n, n)``.
        importance: mean squares of y, float32 ``(n,)``.
        drift: ``(C - H) H^-1``, ``(n, n)``; None if both models see the same.
        ahead: ``R H^-1``, ``(n_rows, n)``; None where the matmul adds to no residual stream.
    """

    h: Reals
    importance: Floats
    drift: Floats | None = None
    ahead: Floats | None = None

    def stand_in(self, weights: Floats, first: int) -> Floats:
        """Rows from `first` on as they serve best on the inputs that they will see."""
        if self.drift is not None:
            weights = weights + weights @ self.drift
        if self.ahead is not None:
            weights = weights + self.ahead[first : first + len(weights)]
        return weights


def of_one_model(op: Op, states: Iterable[State]) -> Inputs:
    """The inputs of a matmul in the original alone."""
    n = op.src[0].n_cols
    gram, n_tokens = np.zeros((n, n), np.float32), 0
    for state in states:
        x = state[op.src[0]]
        gram += x.T @ x
        n_tokens += len(x)
    return Inputs(damped(gram), _mean_squares(gram, n_tokens))


def of_both_models(op: Op, original: Iterable[State], ours: Iterable[State]) -> Inputs:
    """The inputs of a matmul in both models, all chunks of text."""
    n, source, stream = op.src[0].n_cols, op.src[0], op.dst[0]
    own, cross = np.zeros((n, n), np.float32), np.zeros((n, n), np.float32)
    ahead = np.zeros((stream.n_cols, n), np.float32) if op.add else None
    n_tokens = 0
    for theirs, mine in zip(original, ours, strict=True):
        x, y = theirs[source], mine[source]
        own += y.T @ y
        cross += x.T @ y
        if ahead is not None:
            ahead += (theirs[stream] - mine[stream]).T @ y
        n_tokens += len(y)
    return _divided(own, cross, ahead, n_tokens)


def _divided(own: Floats, cross: Floats, ahead: Floats | None, n_tokens: int) -> Inputs:
    h = damped(own)
    mean = float(np.trace(own)) / len(own) or 1.0
    cross -= own

    both = cross if ahead is None else np.concatenate([cross, ahead])
    by_h = np.ascontiguousarray(np.linalg.solve(h, both.T / mean).T, np.float32)  # H is factorized once for both
    n = len(own)
    return Inputs(h, _mean_squares(own, n_tokens), by_h[:n], None if ahead is None else by_h[n:])


def _mean_squares(gram: Floats, n_tokens: int) -> Floats:
    return np.ascontiguousarray(np.diag(gram) / n_tokens)
