"""Samplers that take tokens out of the race. Each keeps at least one.

Sources: top-k (Fan et al. 2018), top-p (Holtzman et al. 2020), min-p (Nguyen et al. 2024), locally typical sampling
(Meister et al. 2022), top-n-sigma (Tang et al. 2024), XTC (p-e-w 2024, text-generation-webui pull request 6335).
"""

from __future__ import annotations

from math import log

import numpy as np
import numpy.typing as npt

from iqrun.native import lib
from iqrun.sampling.candidates import Candidates, best, head, keep, narrow, probabilities, sort, top

_FIRST_NUCLEUS = 256  # candidates that top-p without top-k looks at first


def top_k(candidates: Candidates, k: int) -> Candidates:
    """The `k` best; 0 keeps all."""
    if k <= 0 or k >= len(candidates.ids):
        return candidates
    return top(candidates, k)


def top_p(candidates: Candidates, p: float, floor: float = 0.0) -> Candidates:
    """The shortest head of the sorted candidates whose probabilities sum to at least `p`.

    Args:
        candidates: in any order.
        p: 1 keeps all.
        floor: what `min_p` will be called with next. It changes nothing in the end, but saves sorting much of a whole
            vocabulary.
    """
    if p >= 1.0:
        return candidates
    if candidates.best_first:
        return narrow(candidates, [(lib.IQ_NARROW_TOP_P, p)])
    return _nucleus(candidates, p, floor)


def _nucleus(candidates: Candidates, p: float, floor: float) -> Candidates:
    """`top_p` without sorting everything: it looks at more and more of the best until they reach `p`.

    `top_p` and `min_p` both keep a head of the sorted tokens, so that what `min_p` drops need not be looked at.
    """
    peak = best(candidates)
    total = float(np.exp(candidates.logits - peak).sum(dtype=np.float64))
    end = int(np.count_nonzero(_reaches(candidates, floor))) if floor > 0.0 else len(candidates.ids)
    k = end if floor > 0.0 else min(_FIRST_NUCLEUS, end)
    while True:
        chosen = top(candidates, k)
        mass = np.cumsum(np.exp(chosen.logits.astype(np.float64) - peak)) / total
        if k == end or mass[-1] >= p:
            return head(chosen, int(np.searchsorted(mass, p)) + 1)
        k = min(8 * k, end)


def min_p(candidates: Candidates, p: float) -> Candidates:
    """Those at least `p` times as probable as the best; 0 keeps all."""
    if p <= 0.0:
        return candidates
    if candidates.best_first:
        return narrow(candidates, [(lib.IQ_NARROW_MIN_P, p)])
    return keep(candidates, _reaches(candidates, p))


def _reaches(candidates: Candidates, p: float) -> npt.NDArray[np.bool_]:
    """Which candidates are at least `p` times as probable as the best."""
    logits = candidates.logits
    enough: npt.NDArray[np.bool_] = logits >= logits.dtype.type(best(candidates) + log(p))
    return enough


def top_n_sigma(candidates: Candidates, n: float) -> Candidates:
    """Those whose logit is at least ``max - n * sigma``, sigma the standard deviation of the logits; n <= 0 keeps all.

    Forbidden tokens (logit -inf) do not count.
    """
    if n <= 0.0 or len(candidates.ids) < 2:
        return candidates
    peak = best(candidates)
    finite = candidates.logits[candidates.logits > -np.inf]
    return keep(candidates, candidates.logits >= peak - n * finite.std(dtype=np.float64))


def typical(candidates: Candidates, p: float) -> Candidates:
    """Those whose surprise ``-log p`` is nearest to the expected surprise (the entropy), up to a probability above `p`.

    As llama.cpp does, it stops at the first token with which the sum is more than `p`; 1 keeps all.
    """
    if p >= 1.0:
        return candidates
    candidates = sort(candidates)
    share = probabilities(candidates)
    with np.errstate(divide="ignore"):
        surprise = -np.log(share)
    entropy = float((share[share > 0] * surprise[share > 0]).sum())
    order = np.argsort(np.abs(surprise - entropy), kind="stable")
    n_kept = int(np.searchsorted(np.cumsum(share[order]), p, side="right")) + 1
    return keep(candidates, np.sort(order[:n_kept]))


def xtc(candidates: Candidates, probability: float, threshold: float, random: np.random.Generator) -> Candidates:
    """Exclude top choices: with a `probability`, takes out all tokens above `threshold` but the least probable of them.

    A threshold above 0.5 does nothing: no two tokens can reach it.
    """
    if probability <= 0.0 or threshold > 0.5 or len(candidates.ids) < 2 or random.random() >= probability:
        return candidates
    candidates = sort(candidates)
    n_above = int(np.count_nonzero(probabilities(candidates) >= threshold))
    first = max(n_above - 1, 0)
    return Candidates(candidates.ids[first:], candidates.logits[first:], True)
