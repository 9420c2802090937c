"""Samplers that make a distribution flatter or steeper.

Source of the dynamic temperature: kalomaze's entropy sampling (2023), as in llama.cpp.
"""

from __future__ import annotations

from math import isfinite

import numpy as np

from iqrun.native import lib
from iqrun.sampling.candidates import Candidates, narrow, only_best, probabilities


def temperature(candidates: Candidates, t: float) -> Candidates:
    """Divides the logits by `t`; 0, and what is too small to divide by, leaves the best token alone."""
    if t == 1.0:
        return candidates
    if candidates.best_first:
        return narrow(candidates, [(lib.IQ_NARROW_TEMPERATURE, t)])
    if t == 0.0:
        return only_best(candidates)
    with np.errstate(over="ignore"):
        scaled = candidates.logits.astype(np.float64) / t
    return Candidates(candidates.ids, scaled) if isfinite(scaled.max()) else only_best(candidates)


def dynamic_temperature(candidates: Candidates, t: float, spread: float, exponent: float) -> Candidates:
    """A temperature from ``t - spread`` (at least 0) to ``t + spread``: the higher, the less sure the model is.

    With H the entropy and n the number of candidates: ``low + (high - low) * (H / log n) ** exponent``.
    """
    if len(candidates.ids) < 2:
        return candidates
    share = probabilities(candidates)
    share = share[share > 0]
    entropy = float(-(share * np.log(share)).sum()) / float(np.log(len(candidates.ids)))
    low, high = max(t - spread, 0.0), t + spread
    return temperature(candidates, low + (high - low) * min(max(entropy, 0.0), 1.0) ** exponent)
