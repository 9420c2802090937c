"""Choosing the next token: a chain of small pure functions on logits.

The order, the defaults and the meaning of each number are llama.cpp's: repeat penalty, top-k, top-p, min-p,
temperature, then one draw. A `Candidates` is what is still in the race: token ids and their logits, best first.

Sources: repeat penalty (Keskar et al. 2019), top-k (Fan et al. 2018), top-p (Holtzman et al. 2020), min-p (Nguyen et
al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.errors import IqrunError

Floats: TypeAlias = npt.NDArray[np.float32]

_COLUMNS = 64  # of the reduction in `_at_least`
_FIRST_NUCLEUS = 256  # candidates that top-p without top-k looks at first


class Candidates(NamedTuple):
    """Token ids and their logits, best first."""

    ids: npt.NDArray[np.intp]
    logits: Floats


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the next token is chosen.

    Attributes:
        temperature: divides the logits; 0 always takes the best token.
        top_k: keep the k best; 0 keeps all.
        top_p: keep the best that together have this probability; 1 keeps all.
        min_p: keep those at least this probable relative to the best; 0 keeps all.
        repeat_penalty: weaken tokens among the last `repeat_last_n`; 1 does nothing.
        repeat_last_n: how far back the penalty looks; 0 = nowhere.
        seed: of the random numbers; None takes a fresh one.

    Raises:
        ValueError: an option is out of its range; the message names it.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_range("temperature", self.temperature, 0.0, inf)
        _check_range("top_p", self.top_p, 0.0, 1.0)
        _check_range("min_p", self.min_p, 0.0, 1.0)
        _check_range("repeat_penalty", self.repeat_penalty, 1e-3, 1e3)
        _check_range("top_k", self.top_k, 0, inf, Integral)
        _check_range("repeat_last_n", self.repeat_last_n, 0, inf, Integral)
        if self.seed is not None:
            _check_range("seed", self.seed, 0, inf, Integral)


class Sampler:
    """Draws tokens as `SamplingOptions` say; holds the random generator (PCG64), so that a seed repeats a text."""

    def __init__(self, options: SamplingOptions) -> None:
        self.options = options
        self._random = np.random.Generator(np.random.PCG64(options.seed))

    def __call__(self, logits: Floats, previous: Sequence[int] = ()) -> int:
        """The next token.

        Args:
            logits: float32 ``(n_vocab,)``; not changed.
            previous: the tokens so far, for the repeat penalty.

        Raises:
            IqrunError: the logits hold NaN or infinity: the weights are damaged.
        """
        o = self.options
        if o.repeat_penalty != 1.0 and o.repeat_last_n > 0:
            logits = apply_repeat_penalty(logits, previous[-o.repeat_last_n :], o.repeat_penalty)
        if o.temperature == 0.0 or o.top_k == 1:
            return greedy(logits)
        if 0 < o.top_k < len(logits):
            candidates = min_p(top_p(top_k(logits, o.top_k), o.top_p), o.min_p)
        else:
            candidates = nucleus(logits, o.top_p, o.min_p)
        return draw(candidates, o.temperature, self._random)


def apply_repeat_penalty(logits: Floats, recent: Sequence[int], penalty: float) -> Floats:
    """A copy in which each token of `recent` is weaker: a positive logit divided by `penalty`, another multiplied."""
    out: Floats = logits.copy()
    ids = np.unique(np.asarray(recent, dtype=np.intp))
    seen = out[ids]
    out[ids] = np.where(seen > 0, seen / np.float32(penalty), seen * np.float32(penalty))
    return out


def greedy(logits: Floats) -> int:
    """The best token; of equals, the one with the lowest id."""
    best = int(logits.argmax())
    _check_finite(logits[best])
    return best


def top_k(logits: Floats, k: int) -> Candidates:
    """The `k` best tokens; of equals, those with the lowest ids."""
    ids = _at_least(logits, k)
    values = logits[ids]
    _check_finite(values.max())
    order = np.argsort(-values, kind="stable")[:k]
    return Candidates(ids[order], values[order])


def top_p(candidates: Candidates, p: float) -> Candidates:
    """The shortest head of the candidates whose probability reaches `p`; at least one."""
    if p >= 1.0:
        return candidates
    mass = np.cumsum(_softmax(candidates.logits))
    return _head(candidates, int(np.searchsorted(mass, p)) + 1)


def min_p(candidates: Candidates, p: float) -> Candidates:
    """The candidates at least `p` times as probable as the best."""
    if p <= 0.0:
        return candidates
    floor = candidates.logits[0] + np.float32(np.log(p))
    return _head(candidates, max(1, int((candidates.logits >= floor).sum())))


def nucleus(logits: Floats, p: float, floor: float) -> Candidates:
    """`top_p`, then `min_p` with `floor`, of the whole vocabulary, without sorting all of it.

    Both keep a head of the sorted tokens, so the shorter one is the result. Without a floor it looks at more and more
    of the best until they reach `p`.
    """
    best = logits.max()
    _check_finite(best)
    total = float(np.exp(logits - best).sum(dtype=np.float64))
    end = int(np.count_nonzero(logits >= best + np.float32(np.log(floor)))) if floor > 0.0 else len(logits)
    k = end if floor > 0.0 or p >= 1.0 else min(_FIRST_NUCLEUS, end)
    while True:
        candidates = top_k(logits, k)
        mass = np.cumsum(np.exp(candidates.logits - best), dtype=np.float64) / total
        if k == end or mass[-1] >= p:
            return candidates if p >= 1.0 else _head(candidates, int(np.searchsorted(mass, p)) + 1)
        k = min(8 * k, end)


def draw(candidates: Candidates, temperature: float, random: np.random.Generator) -> int:
    """One token, with probability proportional to ``exp(logit / temperature)``."""
    with np.errstate(over="ignore"):  # a tiny temperature: all but the best become exp(-inf)
        scaled = (candidates.logits - candidates.logits[0]).astype(np.float64) / temperature
    mass = np.cumsum(np.exp(scaled))
    place = int(np.searchsorted(mass, random.random() * mass[-1], side="right"))
    return int(candidates.ids[min(place, len(candidates.ids) - 1)])


def _head(candidates: Candidates, n: int) -> Candidates:
    return Candidates(candidates.ids[:n], candidates.logits[:n])


def _softmax(logits: Floats) -> npt.NDArray[np.float64]:
    """Probabilities of logits whose first is the largest."""
    weights = np.exp(logits.astype(np.float64) - float(logits[0]))
    probabilities: npt.NDArray[np.float64] = weights / weights.sum()
    return probabilities


def _at_least(logits: Floats, k: int) -> npt.NDArray[Any]:
    """Ids, ascending, among which the `k` best are.

    The k-th largest of the columns' maxima bounds the k-th largest logit from below, and few logits are above it: two
    sequential passes instead of a selection among all, which is ten times faster for a vocabulary of 128k.
    """
    n_columns = len(logits) // _COLUMNS
    if n_columns > 4 * k:
        maxima = logits[: n_columns * _COLUMNS].reshape(_COLUMNS, n_columns).max(axis=0)
        bound = np.partition(maxima, n_columns - k)[n_columns - k]
    elif len(logits) > k:
        bound = np.partition(logits, len(logits) - k)[len(logits) - k]
    else:
        return np.arange(len(logits))
    return np.flatnonzero(~(logits < bound))  # with NaN, if there is any: `top_k` refuses it


def _check_finite(best: Any) -> None:
    if not isfinite(best):
        raise IqrunError("the model computed NaN or infinite logits: the file's weights are damaged")


def _check_range(name: str, value: float, low: float, high: float, kind: type = Real) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high or value == inf:
        noun = "a whole number" if kind is Integral else "a number"
        bound = f"from {low:g} to {high:g}" if high < inf else f"of at least {low:g}"
        raise ValueError(f"{name} is {value!r}, but must be {noun} {bound}")
