"""Samplers that make tokens less likely which would repeat what was said.

Sources: repeat penalty (Keskar et al. 2019), presence and frequency penalty (OpenAI's API reference), DRY (p-e-w 2024,
text-generation-webui pull request 5677).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log

import numpy as np

from iqrun.sampling.candidates import Candidates, Ids, Logits

_LOG_OF_LARGEST = 88.72  # of float32


def penalties(
    candidates: Candidates, recent: Sequence[int], repeat: float = 1.0, presence: float = 0.0, frequency: float = 0.0
) -> Candidates:
    """Weakens each token of `recent`.

    A positive logit is divided by `repeat`, another one multiplied; then `presence`, and `frequency` for each time the
    token occurred, are subtracted.
    """
    if not len(recent):
        return candidates
    tokens, counts = np.unique(np.asarray(recent, dtype=np.intp), return_counts=True)
    places, which = _places(candidates, tokens)
    old = candidates.logits[places]
    new = np.where(old > 0, old / repeat, old * repeat) - presence - frequency * counts[which]
    return _replaced(candidates, places, new)


def dry(
    candidates: Candidates,
    recent: Sequence[int],
    multiplier: float,
    base: float,
    allowed_length: int,
    breakers: Sequence[bytes],
    token_bytes: Callable[[int], bytes],
) -> Candidates:
    """Weakens tokens that would go on repeating: by ``multiplier * base ** (n - allowed_length)``.

    n is the number of tokens at the end of `recent` that stand in it before that token already, at least
    `allowed_length`. The texts in `breakers` end a repetition: it reaches back to the last of them at most, and a token
    that holds one is not weakened.
    """
    lengths = _repeats(recent, _after_breaker(recent, breakers, token_bytes), allowed_length)
    lengths = {t: n for t, n in lengths.items() if not any(breaker in token_bytes(t) for breaker in breakers)}
    if not lengths:
        return candidates
    tokens = np.array(sorted(lengths), np.intp)
    most = _LOG_OF_LARGEST / log(base) if base > 1.0 else np.inf
    powers = np.minimum([lengths[int(token)] - allowed_length for token in tokens], most)
    places, which = _places(candidates, tokens)
    return _replaced(candidates, places, candidates.logits[places] - multiplier * base ** powers[which])


def _repeats(recent: Sequence[int], longest: int, shortest: int) -> dict[int, int]:
    """For each token that stood behind a repeat of the end of `recent`: the length of the longest such repeat."""
    found: dict[int, int] = {}
    if longest < shortest:
        return found
    backwards = recent[::-1]
    for place, length in enumerate(_z_array(backwards)):
        if place and min(length, longest) >= shortest:
            token = backwards[place - 1]
            found[token] = max(found.get(token, 0), min(length, longest))
    return found


def _z_array(tokens: Sequence[int]) -> list[int]:
    """For each place, how many tokens from there on equal those from the beginning on, in linear time (Gusfield)."""
    n = len(tokens)
    z = [0] * n
    left = right = 0
    for i in range(1, n):
        length = min(z[i - left], right - i) if i < right else 0
        while i + length < n and tokens[length] == tokens[i + length]:
            length += 1
        if i + length > right:
            left, right = i, i + length
        z[i] = length
    return z


def _after_breaker(recent: Sequence[int], breakers: Sequence[bytes], token_bytes: Callable[[int], bytes]) -> int:
    """How many tokens stand behind the last breaker, which may span tokens."""
    reach = max(map(len, breakers), default=1) - 1
    behind = b""  # the beginning of the text behind this token
    for n, token in enumerate(reversed(recent)):
        text = token_bytes(token)
        window = text + behind
        ends = [place + len(b) for b in breakers if (place := window.rfind(b, 0, len(text) + len(b) - 1)) >= 0]
        if ends:
            return n - _tokens_within(recent[len(recent) - n :], max(ends) - len(text), token_bytes)
        behind = window[:reach]
    return len(recent)


def _tokens_within(tokens: Sequence[int], n_bytes: int, token_bytes: Callable[[int], bytes]) -> int:
    """How many tokens the first `n_bytes` bytes touch."""
    n = 0
    while n_bytes > 0 and n < len(tokens):
        n_bytes -= len(token_bytes(tokens[n]))
        n += 1
    return n


def _places(candidates: Candidates, tokens: Ids) -> tuple[Ids, Ids]:
    """Where tokens (ascending) stand among the candidates, and which of them each place holds."""
    ids = candidates.ids
    if tokens[-1] < len(ids) and (ids[tokens] == tokens).all():  # the whole vocabulary in order
        return tokens, np.arange(len(tokens))
    places = np.flatnonzero(np.isin(ids, tokens))
    return places, np.searchsorted(tokens, ids[places])


def _replaced(candidates: Candidates, places: Ids, values: Logits) -> Candidates:
    """The candidates with other logits at some places; sorted no more."""
    logits = candidates.logits.copy()
    logits[places] = values
    return Candidates(candidates.ids, logits)
