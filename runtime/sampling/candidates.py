"""`Candidates`: the tokens that are still in the race, and what every sampler needs of them."""

from __future__ import annotations

from math import isfinite
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.errors import IqrunError
from iqrun.native import ffi, lib

Ids: TypeAlias = npt.NDArray[np.intp]
Logits: TypeAlias = npt.NDArray[np.floating[Any]]

_FEW, _MANY = 4, 4096  # the core finds the best of four times as many, or more, and so many at most: else sorting
# all of them costs no more


class Candidates(NamedTuple):
    """Token ids and their logits.

    Attributes:
        ids: each at most once.
        logits: one for each id.
        best_first: whether they are sorted by logit; equals stay in their order.
    """

    ids: Ids
    logits: Logits
    best_first: bool = False


def sort(candidates: Candidates) -> Candidates:
    """The same tokens, best first; equals stay in their order.

    Raises:
        IqrunError: as `best`.
    """
    if candidates.best_first:
        return candidates
    best(candidates)  # NaN would be sorted to the end and be overlooked
    order = (-candidates.logits).argsort(kind="stable")
    return Candidates(candidates.ids[order], candidates.logits[order], True)


def best(candidates: Candidates) -> Any:
    """The largest logit.

    Raises:
        IqrunError: the logits hold NaN or infinity, or nothing is left.
    """
    value = candidates.logits[0] if candidates.best_first else candidates.logits.max()
    if not isfinite(value):
        raise IqrunError(
            "no token can be chosen: the logits are NaN or infinite. The file's weights are damaged, or a logit bias, "
            "a logits processor or an own sampler forbids every token"
        )
    return value


def only_best(candidates: Candidates) -> Candidates:
    """The best token alone; of equals, the one that comes first.

    Raises:
        IqrunError: as `best`.
    """
    place = 0 if candidates.best_first else int(candidates.logits.argmax())
    chosen = Candidates(candidates.ids[place : place + 1], candidates.logits[place : place + 1], True)
    best(chosen)
    return chosen


def head(candidates: Candidates, n: int) -> Candidates:
    """The first `n` of candidates that are sorted."""
    return Candidates(candidates.ids[:n], candidates.logits[:n], True)


def narrow(candidates: Candidates, steps: Any) -> Candidates:
    """What samplers leave of candidates that are sorted: one call of the core, as microseconds count.

    Args:
        candidates: sorted, and the best of them finite.
        steps: pairs of an ``iq_narrow_kind`` and its value; or an ``iq_narrow_step[]``, sooner.
    """
    logits = candidates.logits.astype(np.float64)
    n = lib.iq_narrow(ffi.from_buffer("double[]", logits), logits.size, steps, len(steps))
    return Candidates(candidates.ids[:n], logits[:n], True)


def keep(candidates: Candidates, which: Any) -> Candidates:
    """Those that a mask or an ascending list of places names, in the same order."""
    return Candidates(candidates.ids[which], candidates.logits[which], candidates.best_first)


def weights(candidates: Candidates) -> npt.NDArray[np.float64]:
    """``exp(logit - largest)``: what the probabilities are proportional to, in float64."""
    out: npt.NDArray[np.float64] = candidates.logits.astype(np.float64)
    out -= best(candidates)
    return np.exp(out, out)


def probabilities(candidates: Candidates) -> npt.NDArray[np.float64]:
    """The softmax of the logits, in float64."""
    share = weights(candidates)
    share /= share.sum()
    return share


def draw(candidates: Candidates, uniform: float) -> int:
    """A place, with probability proportional to ``exp(logit)``.

    Args:
        candidates: at least one.
        uniform: a random number in [0, 1).
    """
    if candidates.best_first:
        logits = np.asarray(candidates.logits, np.float64)
        return int(lib.iq_draw(ffi.from_buffer("double[]", logits), logits.size, uniform))
    mass = weights(candidates).cumsum()
    return min(int(mass.searchsorted(uniform * mass[-1], side="right")), len(mass) - 1)


def top(candidates: Candidates, k: int) -> Candidates:
    """The `k` best, best first; equals stay in their order.

    Raises:
        IqrunError: as `best`.
    """
    if candidates.best_first:
        return head(candidates, k)
    if candidates.logits.dtype != np.float32 or k > min(len(candidates.ids) // _FEW, _MANY):
        return head(sort(candidates), k)
    logits, places = np.ascontiguousarray(candidates.logits), np.empty(k, np.int64)
    n = lib.iq_top_k(ffi.from_buffer("float[]", logits), logits.size, k, ffi.from_buffer("int64_t[]", places))
    chosen = places[:n]
    found = Candidates(candidates.ids[chosen], logits[chosen], True)
    best(found)
    return found
