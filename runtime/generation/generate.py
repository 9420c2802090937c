"""The decode loop: evaluate, choose, decode to text, until something ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from iqrun.errors import ClosedError
from iqrun.generation.lookup import Lookup
from iqrun.generation.records import FinishReason, Step, Timings
from iqrun.generation.stops import StopFinder
from iqrun.generation.writer import Constraint, Decoder, TextDecoder, Writer
from iqrun.sampling import SamplingOptions

__all__ = [
    "Constraint",
    "Decoder",
    "Evaluator",
    "FinishReason",
    "Step",
    "StopFinder",
    "TextDecoder",
    "Timings",
    "constraint_of",
    "generate",
]


class Evaluator(Protocol):
    """What generation needs of a `Session`."""

    n_ctx: int

    def __len__(self) -> int:
        """Tokens evaluated so far."""

    def recent(self, n: int) -> list[int]:
        """The last `n` tokens."""

    def evaluate(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Appends tokens; logits of the last."""


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
    response_format: Any = None,
    lookup: bool = False,
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
        response_format: what the text must look like: an `iqrun.Grammar`, or a dictionary as the openai package takes
            it (``{"type": "json_object"}``).
        lookup: guess tokens from the text so far: the same text, in less time where it repeats; see
            `iqrun.generation.lookup`. It needs a `Session`.

    Yields:
        One `Step` per token; the last one has a `finish_reason`.

    Raises:
        ContextFullError: the prompt does not fit; no token was drawn.
        GrammarError: the response format is not valid, or too complex.
        ValueError: a negative `max_tokens` or `logprobs`, an empty stop string.
    """
    writer = Writer(
        tokenizer,
        sampling,
        max_tokens=max_tokens,
        stop=stop,
        at_start=at_start,
        logprobs=logprobs,
        constraint=constraint_of(response_format, tokenizer),
    )
    if lookup:
        return _with_lookup(Lookup(session), prompt_ids, writer)  # type: ignore[arg-type]  # a `Session`, as said
    return _steps(session, prompt_ids, writer, lambda: (0, 0))


def constraint_of(response_format: Any, tokenizer: TextDecoder) -> Constraint | None:
    """What keeps one text to a response format; None if there is none."""
    if response_format is None:
        return None
    from iqrun.generation.grammar import Grammar

    return Grammar.of(response_format).constraint(tokenizer)  # type: ignore[arg-type]  # a `Tokenizer`


def _with_lookup(session: Lookup, prompt_ids: Sequence[int], writer: Writer) -> Iterator[Step]:
    try:
        yield from _steps(session, prompt_ids, writer, lambda: (session.n_drafted, session.n_accepted))
    finally:
        with suppress(ClosedError):  # the model was closed meanwhile: nobody will see the session's guesses
            session.close()


def _steps(
    session: Evaluator, prompt_ids: Sequence[int], writer: Writer, drafts: Callable[[], tuple[int, int]]
) -> Iterator[Step]:
    start = perf_counter()
    logits = session.evaluate(prompt_ids)
    prompt_seconds, seconds = perf_counter() - start, 0.0
    step: Step | None = None
    while writer.reason is None:
        if step is not None:
            yield step
        start = perf_counter()
        if step is not None:
            assert step.token_id is not None
            logits = session.evaluate((step.token_id,))
        step = writer.draw(logits, session.recent(writer.n_recent), full=len(session) >= session.n_ctx)
        seconds += perf_counter() - start
    yield writer.finish(step, Timings(len(prompt_ids), prompt_seconds, writer.n_drawn, seconds, *drafts()))
