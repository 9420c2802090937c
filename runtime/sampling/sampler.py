"""`Sampler`: draws tokens as `SamplingOptions` say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.errors import IqrunError
from iqrun.native import ffi, lib
from iqrun.sampling import penalties, truncation
from iqrun.sampling.candidates import Candidates, best, draw, narrow
from iqrun.sampling.mirostat import Mirostat
from iqrun.sampling.options import OwnSampler, SamplingOptions
from iqrun.sampling.temperature import dynamic_temperature, temperature

Floats: TypeAlias = npt.NDArray[np.float32]
Step: TypeAlias = Callable[[Candidates, Sequence[int]], Candidates]

EVERYTHING = 1 << 62  # tokens: more than any context holds


class Sampler:
    """Draws tokens; holds the random generator (PCG64), so that a seed repeats a text.

    Attributes:
        options: how.
        n_recent: how many of the latest tokens a call needs to see.
    """

    def __init__(
        self,
        options: SamplingOptions,
        *,
        end_ids: Collection[int] = (),
        token_bytes: Callable[[int], bytes] | None = None,
    ) -> None:
        """Prepares the chain; samplers that do nothing are left out of it.

        Args:
            options: how tokens are chosen.
            end_ids: the tokens that `ignore_eos` forbids.
            token_bytes: the text of a token, for DRY's sequence breakers; without it there are none.
        """
        self.options = options
        self._token_bytes = token_bytes
        self._random = np.random.Generator(np.random.PCG64(options.seed))
        self._mirostat = Mirostat(options.mirostat_tau, options.mirostat_eta) if options.mirostat else None
        forbidden = dict.fromkeys(end_ids, -np.inf) if options.ignore_eos else {}
        bias = {**options.logit_bias, **forbidden}
        self._bias_ids = np.array(sorted(bias), np.intp)
        self._bias = np.array([bias[int(token_id)] for token_id in self._bias_ids], np.float32)
        self._ids = np.arange(0)
        self._steps = self._chain()
        self.n_recent = EVERYTHING if options.processors else max([0, *(n for _, n in self._steps)])

    def __call__(self, logits: Floats, previous: Sequence[int] = ()) -> int:
        """The next token.

        Args:
            logits: float32 ``(n_vocab,)``; not changed.
            previous: the tokens so far, or the last `n_recent` of them.

        Raises:
            IqrunError: the logits hold NaN or infinity: the weights are damaged; or nothing is left to draw from.
            ValueError: a biased token is not in the vocabulary, or a processor returned another shape.
        """
        logits = self._changed(logits, previous)
        if len(self._ids) != len(logits):
            self._ids = np.arange(len(logits))
        candidates = Candidates(self._ids, logits)
        for step, n_recent in self._steps:
            candidates = step(candidates, previous[-n_recent:] if n_recent else ())
        if self._mirostat is None:
            return int(candidates.ids[self._draw(candidates)])
        candidates = self._mirostat.truncate(candidates)
        place = self._draw(candidates)
        self._mirostat.observe(candidates, place)
        return int(candidates.ids[place])

    def _changed(self, logits: Floats, previous: Sequence[int]) -> Floats:
        """The logits with bias, as the processors return them; a copy if they differ."""
        if not len(self._bias_ids) and not self.options.processors:
            return logits
        out: Floats = logits.copy()
        if len(self._bias_ids):
            if self._bias_ids[-1] >= len(out):
                raise ValueError(f"logit_bias has token {self._bias_ids[-1]}, but the vocabulary has {len(out)} tokens")
            out[self._bias_ids] += self._bias
        for processor in self.options.processors:
            out = np.asarray(processor(previous, out), np.float32)
            if out.shape != logits.shape:
                raise ValueError(f"a logits processor returned shape {out.shape}, but must keep {logits.shape}")
        return out

    def _draw(self, candidates: Candidates) -> int:
        """A place. No random number is taken where there is no choice."""
        if len(candidates.ids) == 1:
            best(candidates)
            return 0
        return draw(candidates, self._random.random())

    # ---- the chain ----

    def _chain(self) -> list[tuple[Step, int]]:
        """The steps, and how many of the latest tokens each needs."""
        o = self.options
        if self._mirostat is not None:
            return [(lambda c, _: temperature(c, o.temperature), 0)]
        narrowing = self._narrowing()
        chain: list[tuple[Step, int]] = []
        for together, run in groupby(self._acting(), lambda name: isinstance(name, str) and name in narrowing):
            names = list(run)
            steps = [self._step(name, names[place + 1 : place + 2]) for place, name in enumerate(names)]
            chain += [(_together(steps, [narrowing[name] for name in names]), 0)] if together else steps
        return chain

    def _narrowing(self) -> dict[str | OwnSampler, tuple[int, float]]:
        """The samplers that the core can do on sorted candidates: ``iq_narrow_kind`` and value of each."""
        o = self.options
        steps: dict[str | OwnSampler, tuple[int, float]] = {
            "top_p": (lib.IQ_NARROW_TOP_P, o.top_p),
            "min_p": (lib.IQ_NARROW_MIN_P, o.min_p),
        }
        if o.dynatemp_range == 0.0:
            steps["temperature"] = (lib.IQ_NARROW_TEMPERATURE, o.temperature)
        return steps

    def _acting(self) -> list[str | OwnSampler]:
        """The samplers that do something.

        A greedy choice takes the best token whatever top-k, top-p, min-p and top-n-sigma leave, as long as nothing else
        looks at the rest.
        """
        o = self.options
        acts = {
            "penalties": o.repeat_last_n != 0
            and (o.repeat_penalty, o.presence_penalty, o.frequency_penalty) != (1.0, 0.0, 0.0),
            "dry": o.dry_multiplier > 0.0 and o.dry_penalty_last_n != 0,
            "top_n_sigma": o.top_n_sigma > 0.0,
            "top_k": o.top_k > 0,
            "typ_p": o.typical_p < 1.0,
            "top_p": o.top_p < 1.0,
            "min_p": o.min_p > 0.0,
            "xtc": o.xtc_probability > 0.0 and o.xtc_threshold <= 0.5,
            "temperature": o.temperature != 1.0 or o.dynatemp_range > 0.0,
        }
        names = [name for name in o.samplers if not isinstance(name, str) or acts[name]]
        others = {name for name in names if not isinstance(name, str) or name in ("typ_p", "xtc")}
        if "temperature" in names and o.temperature == 0.0 and o.dynatemp_range == 0.0 and not others:
            return [name for name in names if name in ("penalties", "dry", "temperature")]
        return names

    def _step(self, name: str | OwnSampler, following: Sequence[str | OwnSampler]) -> tuple[Step, int]:
        o = self.options
        if not isinstance(name, str):
            return _own_step(name), 0
        floor = o.min_p if following == ["min_p"] else 0.0
        scale = _temperature_step(o)
        steps: dict[str, Step] = {
            "penalties": lambda c, recent: penalties.penalties(
                c, recent, o.repeat_penalty, o.presence_penalty, o.frequency_penalty
            ),
            "dry": self._dry,
            "top_n_sigma": lambda c, _: truncation.top_n_sigma(c, o.top_n_sigma),
            "top_k": lambda c, _: truncation.top_k(c, o.top_k),
            "typ_p": lambda c, _: truncation.typical(c, o.typical_p),
            "top_p": lambda c, _: truncation.top_p(c, o.top_p, floor),
            "min_p": lambda c, _: truncation.min_p(c, o.min_p),
            "xtc": lambda c, _: truncation.xtc(c, o.xtc_probability, o.xtc_threshold, self._random),
            "temperature": scale,
        }
        looks_back = {"penalties": o.repeat_last_n, "dry": o.dry_penalty_last_n}.get(name, 0)
        return steps[name], looks_back if looks_back >= 0 else EVERYTHING

    def _dry(self, candidates: Candidates, recent: Sequence[int]) -> Candidates:
        o = self.options
        breakers = [text.encode() for text in o.dry_sequence_breakers] if self._token_bytes else []
        return penalties.dry(
            candidates,
            recent,
            o.dry_multiplier,
            o.dry_base,
            o.dry_allowed_length,
            breakers,
            self._token_bytes or (lambda _: b""),
        )


def _temperature_step(o: SamplingOptions) -> Step:
    if o.dynatemp_range > 0.0:
        return lambda c, _: dynamic_temperature(c, o.temperature, o.dynatemp_range, o.dynatemp_exponent)
    return lambda c, _: temperature(c, o.temperature)


def _together(steps: Sequence[tuple[Step, int]], narrowing: Sequence[tuple[int, float]]) -> Step:
    """Samplers that stand side by side: in one call of the core if the candidates are sorted, else one by one."""
    in_core = ffi.new("iq_narrow_step[]", narrowing)

    def step(candidates: Candidates, recent: Sequence[int]) -> Candidates:
        if candidates.best_first:
            return narrow(candidates, in_core)
        for each, _ in steps:
            candidates = each(candidates, recent)
        return candidates

    return step


def _own_step(sampler: OwnSampler) -> Step:
    """A user's sampler, whose result is checked."""

    def step(candidates: Candidates, _: Sequence[int]) -> Candidates:
        ids, logits, *_rest = sampler(candidates)
        if len(ids) != len(logits):
            raise ValueError(f"a sampler returned {len(ids)} ids, but {len(logits)} logits")
        if not len(ids):
            raise IqrunError("a sampler of your own left no token to draw from")
        return Candidates(np.asarray(ids, np.intp), np.asarray(logits))

    return step
