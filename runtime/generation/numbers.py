"""Texts as numbers: embeddings, and how probable a model finds a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.engine.session import Session
from iqrun.errors import IqrunError
from iqrun.program import Program
from iqrun.scores import log_softmax

Pooling = Literal["mean", "last", "cls"]
Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]

_PIECE = 128  # tokens whose logits are held at once


@dataclass(frozen=True, slots=True)
class Score:
    """How probable a model finds a text.

    Attributes:
        ids: the tokens that were scored.
        logprobs: float64, the natural logarithm of the probability of each after all tokens before it.
    """

    ids: tuple[int, ...]
    logprobs: Doubles

    @property
    def total(self) -> float:
        """The log-probability of all of them together."""
        return float(self.logprobs.sum())

    @property
    def mean(self) -> float:
        """Log-probability per token; nan if there are none."""
        return float(self.logprobs.mean()) if len(self.ids) else float("nan")

    @property
    def perplexity(self) -> float:
        """``exp(-mean)``."""
        return exp(-self.mean)


def score(session: Session, ids: Sequence[int], n_given: int = 1) -> Score:
    """Scores all tokens but the first `n_given`, in an empty session.

    Raises:
        ContextFullError: there are more tokens than `n_ctx`.
        IqrunError: the logits are not finite.
        ValueError: `n_given` is not from 1 to the number of tokens.
    """
    if not 1 <= n_given <= len(ids):
        raise ValueError(f"n_given is {n_given}, but must be from 1 to the {len(ids)} tokens of the text")
    parts = [np.zeros(0)]
    if n_given > 1:
        session.evaluate(ids[: n_given - 1])
    for first in range(n_given - 1, len(ids) - 1, _PIECE):
        piece = ids[first : min(first + _PIECE, len(ids) - 1)]
        log_p = log_softmax(session.evaluate(piece, want="all"))
        parts.append(log_p[np.arange(len(piece)), np.asarray(ids[first + 1 : first + 1 + len(piece)])])
    logprobs = np.concatenate(parts)
    if not np.isfinite(logprobs).all():
        raise IqrunError("the model computed NaN or infinite logits: the file's weights are damaged")
    return Score(tuple(int(token) for token in ids[n_given:]), logprobs)


def embed(session: Session, program: Program, ids: Sequence[int], pooling: Pooling, normalize: bool) -> Floats:
    """One vector for a list of tokens, from what the last layer says of each after the last norm.

    Args:
        session: an empty one.
        program: of its model.
        ids: at least one token.
        pooling: the ``"mean"`` over all tokens, the vector of the ``"last"`` one, or of the first (``"cls"``).
        normalize: to length 1.

    Returns:
        float32 ``(n_embd,)``.
    """
    check_pooling(pooling)
    last_op = next(index for index, op in enumerate(program.ops) if program.logits in op.dst)
    rows: list[Doubles] = []
    session.trace(ids, [last_op], lambda _, x, __: rows.append(_kept(x, pooling)))
    vector = np.sum(rows, axis=0) / len(ids) if pooling == "mean" else rows[-1 if pooling == "last" else 0]
    if not np.isfinite(vector).all():
        raise IqrunError("the model computed NaN or infinite values: the file's weights are damaged")
    length = float(np.sqrt((vector.astype(np.float64) ** 2).sum()))
    return (vector / length if normalize and length > 0 else vector).astype(np.float32)


def check_pooling(pooling: str) -> None:
    """Raises ValueError if there is no such pooling."""
    if pooling not in ("mean", "last", "cls"):
        raise ValueError(f"pooling is {pooling!r}, but must be 'mean', 'last' or 'cls'")


def _kept(x: Floats, pooling: Pooling) -> Doubles:
    """What is needed of the vectors of one step, float32 ``(n_tokens, n_embd)``."""
    if pooling == "mean":
        total: Doubles = x.sum(axis=0, dtype=np.float64)
        return total
    vector: Doubles = x[-1 if pooling == "last" else 0].astype(np.float64)
    return vector
