"""Several texts at once: one step of the engine advances all of them, so that the weights are read once for all.

What all prompts begin with is evaluated once, and its keys and values are shared. A text that ends makes room for the
next prompt. The engine computes each text as if it were alone: the same bits, whatever stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from iqrun.engine.context import Context
from iqrun.engine.steps import Floats, Way
from iqrun.generation.records import Step, Timings
from iqrun.generation.writer import Writer

KV_BLOCK = 64  # positions; a sequence holds whole blocks

_PREFIX = 0  # the sequence that keeps what all prompts begin with; the others are slots for texts


class Job:
    """A prompt, and the text that is being written to it.

    Attributes:
        index: place among the prompts.
        ids: tokens of the prompt.
        writer: chooses the tokens.
        slot: its sequence.
        step: the latest one.
    """

    def __init__(self, index: int, ids: Sequence[int], writer: Writer) -> None:
        self.index, self.ids, self.writer = index, list(ids), writer
        self.slot = -1
        self.step: Step | None = None
        self._n_prompt, self._prompt_seconds, self._seconds = 0, 0.0, 0.0

    def note_prompt(self, n_tokens: int, seconds: float) -> None:
        """Notes what evaluating the prompt took."""
        self._n_prompt, self._prompt_seconds = n_tokens, seconds

    def note_step(self, seconds: float) -> None:
        """Notes the time of a step of all texts."""
        self._seconds += seconds

    def last_step(self) -> Step:
        """The step that ends the text."""
        timings = Timings(self._n_prompt, self._prompt_seconds, self.writer.n_drawn, self._seconds)
        return self.writer.finish(self.step, timings)


Row: TypeAlias = tuple[Job, Floats]


def generate_many(context: Context, n_ctx: int, jobs: Sequence[Job]) -> Iterator[tuple[int, Step]]:
    """Writes all texts, as many at once as the context has slots.

    Args:
        context: an empty one with at least two sequences and the room that `positions_needed` says.
        n_ctx: tokens that one text may have with its prompt.
        jobs: in the order in which they begin.

    Yields:
        The index of a text and its next step, text by text in turn.
    """
    prefix = common_prefix([job.ids for job in jobs])
    if prefix:
        context.evaluate(prefix, _PREFIX, np.zeros(len(prefix), np.bool_), "prefill")
    waiting, slots = list(jobs), list(range(1, context.n_seq))
    rows: list[Row] = []
    while rows or waiting:
        begun = [waiting.pop(0) for _ in range(min(len(slots), len(waiting)))]
        for job in begun:
            job.slot = slots.pop(0)
            context.copy(_PREFIX, job.slot, len(prefix))
        rows += _read_prompts(context, begun, len(prefix))
        running = []
        for job, logits in rows:
            yield from _draw(context, n_ctx, job, logits)
            if job.writer.reason is None:
                running.append(job)
            else:
                context.truncate(0, job.slot)
                slots.append(job.slot)
        rows = _advance(context, running)


def positions_needed(prompts: Sequence[Sequence[int]], n_slots: int, max_tokens: int | None, n_ctx: int) -> int:
    """Positions of a context in which `n_slots` of the texts never run out of room."""
    longest = max(len(ids) for ids in prompts)
    most = n_ctx if max_tokens is None else min(longest + max_tokens, n_ctx)
    n_shared = len(common_prefix(prompts))
    own = whole_blocks(most) - n_shared // KV_BLOCK * KV_BLOCK
    return whole_blocks(n_shared) + n_slots * own


def common_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that all begin with; the last token of each is left out, as its logits are needed."""
    first, *others = prompts
    n = min(len(ids) for ids in prompts) - 1
    if not others:
        return []
    for ids in others:
        n = next((place for place in range(n) if ids[place] != first[place]), n)
    return list(first[:n])


def whole_blocks(n_positions: int) -> int:
    """Positions of the KV blocks that hold so many."""
    return -(-n_positions // KV_BLOCK) * KV_BLOCK


def _read_prompts(context: Context, jobs: Sequence[Job], n_shared: int) -> list[Row]:
    """Evaluates the prompts of new texts; one that is a single token as a step of its own would."""
    single = [job for job in jobs if len(job.ids) == 1]
    longer = [job for job in jobs if len(job.ids) > 1]
    groups: tuple[tuple[list[Job], Way], ...] = ((single, "decode"), (longer, "prefill"))
    rows = {}
    for group, way in groups:
        start = perf_counter()
        rows.update(_evaluate(context, group, [job.ids[n_shared:] for job in group], way))
        for job in group:
            job.note_prompt(len(job.ids) - n_shared, perf_counter() - start)
    return [(job, rows[job]) for job in jobs]


def _advance(context: Context, jobs: Sequence[Job]) -> list[Row]:
    """Evaluates the token that each text drew last."""
    start = perf_counter()
    tokens = [[job.step.token_id] for job in jobs if job.step is not None]
    rows = _evaluate(context, jobs, tokens, "decode")
    for job in jobs:
        job.note_step(perf_counter() - start)
    return list(rows.items())


def _evaluate(context: Context, jobs: Sequence[Job], tokens: Sequence[Sequence[Any]], way: Way) -> dict[Job, Floats]:
    """Appends tokens to each text; the logits after the last of each."""
    if not jobs:
        return {}
    lengths = [len(part) for part in tokens]
    wanted = np.zeros(sum(lengths), np.bool_)
    wanted[np.cumsum(lengths) - 1] = True
    ids = np.concatenate([np.asarray(part) for part in tokens])
    rows = context.evaluate(ids, np.repeat([job.slot for job in jobs], lengths), wanted, way)
    return dict(zip(jobs, rows, strict=True))


def _draw(context: Context, n_ctx: int, job: Job, logits: Floats) -> Iterator[tuple[int, Step]]:
    """Draws the next token of a text, and ends the text if that was the last one."""
    writer = job.writer
    if writer.reason is None:
        start, tokens = perf_counter(), context.tokens[job.slot]
        recent = tokens[-writer.n_recent :] if writer.n_recent else []
        job.step = writer.draw(logits, recent, full=len(tokens) >= n_ctx)
        job.note_step(perf_counter() - start)
        if writer.reason is None:
            yield job.index, job.step
    if writer.reason is not None:
        yield job.index, job.last_step()
