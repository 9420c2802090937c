"""The decode loop: evaluate, choose, decode to text, until something ends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.sampling import Sampler, SamplingOptions, TokenLogprob, token_logprobs

FinishReason: TypeAlias = Literal["end", "stop", "length", "context"]


@dataclass(frozen=True, slots=True)
class Timings:
    """What a generation took.

    Attributes:
        n_prompt: tokens of the prompt that were evaluated, and prompt_seconds what that took.
        n_generated: tokens drawn, and generate_seconds what drawing and evaluating them took; the time that the caller
            spent between two steps is not in it.
    """

    n_prompt: int
    prompt_seconds: float
    n_generated: int
    generate_seconds: float

    @property
    def prompt_per_second(self) -> float:
        """Prompt tokens per second (prefill speed)."""
        return self.n_prompt / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def generated_per_second(self) -> float:
        """Generated tokens per second (decode speed)."""
        return self.n_generated / self.generate_seconds if self.generate_seconds else 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a generation.

    Attributes:
        text: what became certain with this token: whole characters, and nothing that may still turn into a stop string.
            Often empty.
        token_id: the token drawn; None if the generation ended without drawing one.
        finish_reason: None but in the last step: ``"end"`` (the model ended its turn), ``"stop"`` (a stop string, which
            is not part of the text), ``"length"`` (`max_tokens`) or ``"context"`` (no room for another token).
        timings: in the last step.
        logprob: natural logarithm of the token's probability, by the model alone, before any sampler; None if it was
            not asked for.
        top_logprobs: the most probable tokens with theirs, best first, if they were asked for.
    """

    text: str
    token_id: int | None
    finish_reason: FinishReason | None = None
    timings: Timings | None = None
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()


class Evaluator(Protocol):
    """What generation needs of a `Session`."""

    n_ctx: int

    def __len__(self) -> int:
        """Tokens evaluated so far."""

    def recent(self, n: int) -> list[int]:
        """The last `n` tokens."""

    def evaluate(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Appends tokens; logits of the last."""


class Decoder(Protocol):
    """What generation needs of a tokenizer's streaming decoder."""

    def feed(self, token_id: int) -> str:
        """The text that became complete with this token."""

    def flush(self) -> str:
        """What is left."""


class TextDecoder(Protocol):
    """What generation needs of a `Tokenizer`."""

    @property
    def end_ids(self) -> Any:
        """Tokens that end a turn; supports ``in``."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for."""

    def stream_decoder(self, *, at_start: bool = False) -> Decoder:
        """A fresh streaming decoder."""


def generate(
    session: Evaluator,
    tokenizer: TextDecoder,
    prompt_ids: Sequence[int],
    *,
    sampling: SamplingOptions | None = None,
    max_tokens: int | None = None,
    stop: str | Sequence[str] = (),
    at_start: bool = False,
    logprobs: int | None = None,
) -> Iterator[Step]:
    """Continues `session` with a prompt and then with tokens of the model's choice.

    Every token but the last one drawn is in the session afterwards.

    Args:
        session: where to evaluate; its tokens so far stay in front.
        tokenizer: turns tokens into text and knows which of them end a turn.
        prompt_ids: at least one token.
        sampling: how tokens are chosen; default `SamplingOptions()`.
        max_tokens: most tokens to draw; None draws until the context is full.
        stop: texts that end the generation, also where they span tokens.
        at_start: the answer is a text of its own (a chat's turn), not the continuation of the prompt: drop the space
            that some vocabularies put in front of a text.
        logprobs: also give the log-probability of each token, and of so many of the most probable ones.

    Yields:
        One `Step` per token; the last one has a `finish_reason`.

    Raises:
        ContextFullError: the prompt does not fit; no token was drawn.
        ValueError: a negative `max_tokens` or `logprobs`, an empty stop string.
    """
    for name, limit in (("max_tokens", max_tokens), ("logprobs", logprobs)):
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise ValueError(f"{name} is {limit!r}, but must be an int of at least 0")
    finder = StopFinder((stop,) if isinstance(stop, str) else stop)
    options = sampling or SamplingOptions()
    sampler = Sampler(options, end_ids=tokenizer.end_ids, token_bytes=tokenizer.token_bytes)
    decoder = tokenizer.stream_decoder(at_start=at_start)
    return _steps(session, decoder, tokenizer.end_ids, prompt_ids, sampler, max_tokens, finder, logprobs)


def _steps(
    session: Evaluator,
    decoder: Decoder,
    end_ids: Any,
    prompt_ids: Sequence[int],
    sampler: Sampler,
    max_tokens: int | None,
    finder: StopFinder,
    n_logprobs: int | None,
) -> Iterator[Step]:
    start = perf_counter()
    logits = session.evaluate(prompt_ids)
    prompt_seconds, seconds, n_drawn = perf_counter() - start, 0.0, 0
    token: int | None = None
    text = ""
    logprob: float | None = None
    best: tuple[TokenLogprob, ...] = ()
    reason: FinishReason | None = None if max_tokens != 0 else "length"
    while reason is None:
        start = perf_counter()
        if token is not None:
            logits = session.evaluate((token,))
        token = sampler(logits, session.recent(sampler.n_recent))
        if n_logprobs is not None:
            logprob, best = token_logprobs(logits, token, n_logprobs)
        n_drawn += 1
        ended = token in end_ids
        text = "" if ended else finder.feed(decoder.feed(token))
        reason = _reason(ended, finder.found, n_drawn == max_tokens, len(session) >= session.n_ctx)
        seconds += perf_counter() - start
        if reason is None:
            yield Step(text, token, None, None, logprob, best)
    if not finder.found:
        text += finder.feed(decoder.flush()) + finder.finish()
    yield Step(text, token, reason, Timings(len(prompt_ids), prompt_seconds, n_drawn, seconds), logprob, best)


def _reason(ended: bool, stopped: bool, enough: bool, full: bool) -> FinishReason | None:
    return "end" if ended else "stop" if stopped else "length" if enough else "context" if full else None


class StopFinder:
    """Cuts a stream of text at the first stop string, holding back what may become one.

    Attributes:
        found: whether a stop string was met; everything after it is dropped.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise ValueError("a stop string must be a str that is not empty")
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """The text that cannot be part of a stop string any more."""
        if not self._stops:
            return text
        if self.found:
            return ""
        held = self._held + text
        places = [place for place in (held.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self.found, self._held = True, ""
            return held[: min(places)]
        keep = max(_overlap(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """What was held back to the end."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
