"""Steps of a generation as the dictionaries of the text completion API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from iqrun.generation.records import FinishReason, Step
from iqrun.sampling import TokenLogprob
from iqrun.tokenizer import Tokenizer

Reply: TypeAlias = dict[str, Any]

FINISH: dict[FinishReason, str] = {"end": "stop", "stop": "stop", "length": "length", "context": "length"}


@dataclass(frozen=True)
class Request:
    """What the answer must repeat of the question.

    Attributes:
        model: the name that the answer bears.
        prompt: the prompt's text, as far as `echo` and the offsets of log-probabilities need it.
        prompt_ids: its tokens.
        echo: begin the text with the prompt.
        logprobs: how many of the most probable tokens to show; None shows none.
        id, created: filled in by themselves.
    """

    model: str
    tokenizer: Tokenizer
    prompt: str
    prompt_ids: Sequence[int]
    echo: bool = False
    logprobs: int | None = None
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True)
class Scored:
    """A token with its log-probability; None for the first token of an echoed prompt, which nothing predicts."""

    token_id: int
    logprob: float | None
    best: Sequence[TokenLogprob] | None


def completion(request: Request, steps: Iterator[Step], prompt_scores: Sequence[Scored] = ()) -> Reply:
    """The whole answer as one dictionary."""
    texts: list[str] = []
    scores = list(prompt_scores)
    n_drawn = 0
    reason: FinishReason = "length"
    for step in steps:
        texts.append(step.text)
        if _counts(request, step):
            n_drawn += 1
            scores += _scored(step)
        reason = step.finish_reason or reason
    text = (request.prompt if request.echo else "") + "".join(texts)
    shown = None if request.logprobs is None else _logprobs(request, scores, 0 if request.echo else len(request.prompt))
    return {**_reply(request, text, shown, FINISH[reason]), "usage": _usage(request, n_drawn)}


def chunks(request: Request, steps: Iterator[Step], *, include_usage: bool = False) -> Iterator[Reply]:
    """The answer piece by piece; the last chunk is empty and has the reason of the end.

    With `include_usage` one more follows, which has no choices but counts the tokens; the others say that they do not.
    """
    n_drawn = yield from _chunks(request, steps, {"usage": None} if include_usage else {})
    if include_usage:
        yield {**_head(request), "choices": [], "usage": _usage(request, n_drawn)}


def _chunks(request: Request, steps: Iterator[Step], more: Reply) -> Generator[Reply, None, int]:
    """The chunks, each with `more`; returns the number of tokens drawn."""
    n_drawn = 0
    offset = len(request.prompt)
    waiting: list[Scored] = []  # tokens whose characters are not complete, or may still turn into a stop string
    for step in steps:
        if _counts(request, step):
            n_drawn += 1
            waiting += _scored(step)
        if step.text:
            shown = None if request.logprobs is None else _logprobs(request, waiting, offset)
            offset += len(step.text)
            waiting = []
            yield {**_reply(request, step.text, shown, None), **more}
        if step.finish_reason is not None:
            yield {**_reply(request, "", None, FINISH[step.finish_reason]), **more}
    return n_drawn


def _reply(request: Request, text: str, logprobs: Reply | None, finish_reason: str | None) -> Reply:
    choice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish_reason}
    return {**_head(request), "choices": [choice]}


def _head(request: Request) -> Reply:
    return {"id": request.id, "object": "text_completion", "created": request.created, "model": request.model}


def _usage(request: Request, n_drawn: int) -> Reply:
    n_prompt = len(request.prompt_ids)
    return {"prompt_tokens": n_prompt, "completion_tokens": n_drawn, "total_tokens": n_prompt + n_drawn}


def _counts(request: Request, step: Step) -> bool:
    """Whether the step's token belongs to the answer; the one that ends it does not."""
    return step.token_id is not None and step.token_id not in request.tokenizer.end_ids


def _scored(step: Step) -> list[Scored]:
    assert step.token_id is not None
    return [] if step.logprob is None else [Scored(step.token_id, step.logprob, step.top_logprobs)]


def _logprobs(request: Request, scores: Sequence[Scored], offset: int) -> Reply:
    """Tokens with their place in the text, their log-probabilities, and the most probable ones instead of them."""
    texts = [_text(request.tokenizer, score.token_id) for score in scores]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "text_offset": offsets,
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": [_best(request, score) for score in scores],
    }


def _best(request: Request, score: Scored) -> dict[str, float] | None:
    if score.best is None or score.logprob is None:
        return None
    best = {_text(request.tokenizer, found.token_id): found.logprob for found in score.best}
    return {**best, _text(request.tokenizer, score.token_id): score.logprob}


def _text(tokenizer: Tokenizer, token_id: int) -> str:
    """A token alone; half characters are left out."""
    return tokenizer.token_bytes(token_id).decode("utf-8", "ignore") if not tokenizer.is_special(token_id) else ""
