"""How probable the model found a token, before any sampler changed that."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from iqrun.sampling.candidates import Candidates, Logits, best, top


class TokenLogprob(NamedTuple):
    """A token and the natural logarithm of its probability."""

    token_id: int
    logprob: float


def token_logprobs(logits: Logits, token_id: int, n: int) -> tuple[float, tuple[TokenLogprob, ...]]:
    """The log-probability of a token, and the `n` best tokens with theirs: the log-softmax of the model's logits."""
    candidates = Candidates(np.arange(len(logits)), logits)
    peak = float(best(candidates))
    total = peak + float(np.log(np.exp(logits - np.float32(peak)).sum(dtype=np.float64)))
    chosen = top(candidates, n) if n else Candidates(candidates.ids[:0], logits[:0])
    pairs = zip(chosen.ids.tolist(), chosen.logits.tolist(), strict=True)
    return float(logits[token_id]) - total, tuple(TokenLogprob(found, value - total) for found, value in pairs)
