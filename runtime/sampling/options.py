"""`SamplingOptions`: how tokens are chosen, with llama.cpp's names, defaults and order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.sampling.candidates import Candidates

OwnSampler: TypeAlias = Callable[[Candidates], Candidates]
LogitsProcessor: TypeAlias = Callable[[Sequence[int], npt.NDArray[np.float32]], npt.NDArray[np.float32]]

# llama.cpp's letter for each sampler, in the default order
LETTERS = {
    "e": "penalties",
    "d": "dry",
    "s": "top_n_sigma",
    "k": "top_k",
    "y": "typ_p",
    "p": "top_p",
    "m": "min_p",
    "x": "xtc",
    "t": "temperature",
}
DEFAULT_SAMPLERS = tuple(LETTERS.values())
_OTHER_NAMES = {"typical": "typ_p", "typical_p": "typ_p", "temp": "temperature", "nucleus": "top_p"}

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, inf),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (1e-3, 1e3),
    "presence_penalty": (-1e3, 1e3),
    "frequency_penalty": (-1e3, 1e3),
    "dry_multiplier": (0.0, 1e3),
    "dry_base": (1.0, 1e3),
    "top_n_sigma": (-1.0, inf),
    "typical_p": (0.0, 1.0),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 1.0),
    "dynatemp_range": (0.0, inf),
    "dynatemp_exponent": (0.0, inf),
    "mirostat_tau": (0.0, inf),
    "mirostat_eta": (0.0, inf),
}
_WHOLE_RANGES = {
    "top_k": 0,
    "repeat_last_n": -1,
    "dry_allowed_length": 1,
    "dry_penalty_last_n": -1,
}


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the next token is chosen.

    First `logit_bias` and `processors` change the logits, then the `samplers` take their turns, then one token is drawn
    from what is left.

    Attributes:
        temperature: divides the logits; 0 always takes the best token.
        top_k: keep the k best; 0 keeps all.
        top_p: keep the best that together have this probability; 1 keeps all.
        min_p: keep those at least this probable relative to the best; 0 keeps all.
        repeat_penalty: weaken tokens among the last `repeat_last_n`; 1 does nothing.
        repeat_last_n: how far back the three penalties look; 0 = nowhere, -1 = everywhere.
        seed: of the random numbers; None takes a fresh one.
        presence_penalty: taken from the logits of tokens that occurred; 0 does nothing.
        frequency_penalty: taken from them for each time they occurred; 0 does nothing.
        dry_multiplier: strength of DRY, which weakens what would prolong a repetition; 0 does nothing.
        dry_base: the penalty of DRY grows so for each token of the repetition.
        dry_allowed_length: repetitions shorter than this are not weakened.
        dry_penalty_last_n: how far back DRY looks; 0 = nowhere, -1 = everywhere.
        dry_sequence_breakers: texts that a repetition does not reach across.
        top_n_sigma: keep logits within so many standard deviations of the best; 0 and below keep all.
        typical_p: keep the tokens of the most expected surprise that together have this probability; 1 keeps all.
        xtc_probability: how often XTC excludes the top choices; 0 = never.
        xtc_threshold: a top choice for XTC is at least this probable; above 0.5 it never acts.
        dynatemp_range: the temperature goes from `temperature` less this to `temperature` plus this; 0 = constant.
        dynatemp_exponent: how the temperature follows the entropy.
        mirostat: 2 replaces all samplers but the temperature with Mirostat 2; 0 does not.
        mirostat_tau: the surprise, in bits per token, that Mirostat aims at.
        mirostat_eta: how fast Mirostat learns.
        logit_bias: token id to what is added to its logit; -inf forbids it.
        ignore_eos: forbid the tokens that end an answer.
        samplers: the order: names of `DEFAULT_SAMPLERS`, and functions of your own from `Candidates` to `Candidates`. A
            text is read as llama.cpp does: names with ``;`` between, or one letter for each (``edskypmxt``).
        processors: functions ``(tokens, logits) -> logits``: the tokens so far and float32 ``(n_vocab,)``, which may be
            changed in place.

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
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: Sequence[str] = ("\n", ":", '"', "*")
    top_n_sigma: float = -1.0
    typical_p: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    ignore_eos: bool = False
    samplers: str | Sequence[str | OwnSampler] = DEFAULT_SAMPLERS
    processors: Sequence[LogitsProcessor] = ()

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            _check_range(name, getattr(self, name), low, high)
        for name, low in _WHOLE_RANGES.items():
            _check_range(name, getattr(self, name), low, inf, Integral)
        if self.seed is not None:
            _check_range("seed", self.seed, 0, inf, Integral)
        if self.mirostat not in (0, 2):
            raise ValueError(f"mirostat is {self.mirostat!r}, but must be 0 (off) or 2")
        breakers = self.dry_sequence_breakers
        if isinstance(breakers, str) or not all(isinstance(text, str) and text for text in breakers):
            raise ValueError("dry_sequence_breakers must be texts that are not empty")
        if not all(callable(processor) for processor in self.processors):
            raise ValueError("processors must be functions (tokens, logits) -> logits")
        object.__setattr__(self, "dry_sequence_breakers", tuple(breakers))
        object.__setattr__(self, "processors", tuple(self.processors))
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))
        object.__setattr__(self, "samplers", _sampler_names(self.samplers))

    def keywords(self) -> dict[str, Any]:
        """All fields by name, as functions with sampling options take them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def _sampler_names(samplers: str | Sequence[str | OwnSampler]) -> tuple[str | OwnSampler, ...]:
    """The order with the names spelled in one way."""
    if isinstance(samplers, str):
        samplers = _split_samplers(samplers)
    names = [sampler if callable(sampler) else _sampler_name(sampler) for sampler in samplers]
    known = [name for name in names if isinstance(name, str)]
    if len(set(known)) < len(known):
        raise ValueError("samplers names one of them twice")
    return tuple(names)


def _split_samplers(text: str) -> list[str]:
    if set(text) <= set(LETTERS) and text not in _OTHER_NAMES:
        return [LETTERS[letter] for letter in text]
    return [part.strip() for part in text.split(";") if part.strip()]


def _sampler_name(name: str) -> str:
    plain = str(name).replace("-", "_")
    plain = _OTHER_NAMES.get(plain, plain)
    if plain not in DEFAULT_SAMPLERS:
        raise ValueError(f"samplers has {name!r}; there are {', '.join(DEFAULT_SAMPLERS)}")
    return plain


def _checked_bias(bias: Mapping[int, float]) -> dict[int, float]:
    for token_id, value in bias.items():
        _check_range("logit_bias: a token id", token_id, 0, inf, Integral)
        if isinstance(value, bool) or not isinstance(value, Real) or not value < inf:
            raise ValueError(f"logit_bias of token {token_id} is {value!r}, but must be a number or -inf")
    return {int(token_id): float(value) for token_id, value in bias.items()}


def _check_range(name: str, value: float, low: float, high: float, kind: type = Real) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high or value == inf:
        noun = "a whole number" if kind is Integral else "a number"
        bound = f"from {low:g} to {high:g}" if high < inf else f"of at least {low:g}"
        raise ValueError(f"{name} is {value!r}, but must be {noun} {bound}")
