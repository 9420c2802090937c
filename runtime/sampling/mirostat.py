"""Mirostat 2: keeps the surprise of the text near a target.

Source: Basu et al. 2021, "Mirostat: a neural text decoding algorithm that directly controls perplexity", algorithm 2
(version 2.0 in the authors' repository). As in llama.cpp the observed surprise is that of the truncated distribution.
"""

from __future__ import annotations

import numpy as np

from iqrun.sampling.candidates import Candidates, keep, only_best, probabilities


class Mirostat:
    """The controller.

    Attributes:
        mu: the largest surprise, in bits, that is allowed now; it starts at twice the target.
    """

    def __init__(self, tau: float, eta: float) -> None:
        """Takes the target surprise `tau` in bits per token and the learning rate `eta`."""
        self._tau, self._eta = tau, eta
        self.mu = 2.0 * tau

    def truncate(self, candidates: Candidates) -> Candidates:
        """Drops what is more surprising than `mu`, but keeps the best."""
        expected = probabilities(candidates) >= 2.0**-self.mu
        return keep(candidates, expected) if expected.any() else only_best(candidates)

    def observe(self, candidates: Candidates, place: int) -> None:
        """Learns from the token that was drawn: ``mu -= eta * (surprise - tau)``."""
        surprise = -float(np.log2(probabilities(candidates)[place]))
        self.mu -= self._eta * (surprise - self._tau)
