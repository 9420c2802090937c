"""`Candidates`: the tokens that are still in the race, and what every sampler needs of them."""

from __future__ import annotations

from math import isfinite
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.errors import IqrunError

Ids: TypeAlias = npt.NDArray[np.intp]
Logits: TypeAlias = npt.NDArray[np.floating[Any]]

_COLUMNS = 64  # of the reduction in `_at_least`


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


def keep(candidates: Candidates, which: Any) -> Candidates:
    """Those that a mask or an ascending list of places names, in the same order."""
    return Candidates(candidates.ids[which], candidates.logits[which], candidates.best_first)


def probabilities(candidates: Candidates) -> npt.NDArray[np.float64]:
    """The softmax of the logits, in float64."""
    weights: npt.NDArray[np.float64] = np.exp(candidates.logits.astype(np.float64) - best(candidates))
    weights /= weights.sum()
    return weights


def top(candidates: Candidates, k: int) -> Candidates:
    """The `k` best, best first; equals stay in their order."""
    if candidates.best_first:
        return head(candidates, k)
    places = _at_least(candidates.logits, k)
    return head(sort(Candidates(candidates.ids[places], candidates.logits[places])), k)


def _at_least(logits: Logits, k: int) -> Ids:
    """Places, ascending, among which the `k` best are.

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
    return np.flatnonzero(~(logits < bound))  # with NaN, if there is any: `sort` refuses it
