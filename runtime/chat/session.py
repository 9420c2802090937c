"""The session of a chat: reads long prompts piece by piece, makes room when it is full, and keeps the time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from iqrun.generation.generate import Evaluator, Step, Timings

Progress = Callable[[int, int], object]

PIECE_TOKENS = 128  # a long prompt is read in such pieces: what is read stays read if Ctrl-C comes


class ChatSession(Evaluator, Protocol):
    """What a chat needs of a `Session`."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens evaluated so far."""

    def truncate(self, length: int) -> None:
        """Keeps only the first `length` tokens."""

    def save_state(self) -> bytes:
        """The tokens with their keys and values."""

    def load_state(self, data: bytes | memoryview) -> None:
        """Takes such a state."""

    def close(self) -> None:
        """Frees the memory."""


class AnswerSession:
    """A session while one answer is given; `generate` uses it like the session itself.

    Attributes:
        n_ctx: tokens that fit.
    """

    def __init__(
        self,
        session: ChatSession,
        *,
        make_room: Callable[[], list[int] | None] | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        """Wraps a session.

        Args:
            session: what evaluates.
            make_room: called when the session is full; gives the tokens that it shall hold instead, None to end here.
                Nobody else may keep account of the tokens then.
            on_progress: called as ``on_progress(n_read, n_tokens)`` before each piece of a prompt is read.
        """
        self._session = session
        self._make_room = make_room
        self._on_progress = on_progress
        self._n_prompt = self._n_generated = 0
        self._prompt_seconds = self._seconds = 0.0
        self._in_prompt = True
        self.n_ctx = session.n_ctx

    def __len__(self) -> int:
        return len(self._session)

    def recent(self, n: int) -> list[int]:
        """The last `n` tokens."""
        return self._session.recent(n)

    def timed(self, steps: Iterator[Step]) -> Generator[Step, None, None]:
        """Passes steps on and keeps the time that they take, without that of their consumer."""
        step: Step | None
        while True:
            start = perf_counter()
            try:
                step = next(steps, None)
            finally:
                self._seconds += perf_counter() - start
            if step is None:
                return
            self._n_generated += step.token_id is not None
            yield step

    def timings(self) -> Timings:
        """What was done so far, and how long it took."""
        seconds = max(self._seconds - self._prompt_seconds, 0.0)
        return Timings(self._n_prompt, self._prompt_seconds, self._n_generated, seconds)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens evaluated so far."""
        return self._session.tokens

    def truncate(self, length: int) -> None:
        """Keeps only the first `length` tokens."""
        self._session.truncate(length)

    def evaluate(self, ids: Sequence[int], **how: Any) -> npt.NDArray[np.float32]:
        """Appends the prompt (the first call) or what was drawn; logits of the last token, or as `how` says."""
        logits = self._read_prompt(ids) if self._in_prompt else self._session.evaluate(ids, **how)
        kept = self._make_room() if self._make_room is not None and len(self) >= self.n_ctx else None
        if kept is not None:
            n_known = min(common_prefix(self._session.tokens, kept), len(kept) - 1)
            self._session.truncate(n_known)
            logits = self._read(kept[n_known:])
        return logits

    def _read_prompt(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        start, before = perf_counter(), len(self)
        try:
            logits = self._read(ids)
        finally:
            self._n_prompt, self._prompt_seconds = len(self) - before, perf_counter() - start
        self._in_prompt = False
        return logits

    def _read(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Evaluates piece by piece."""
        starts = range(0, len(ids), PIECE_TOKENS)
        for first in starts:
            if self._on_progress is not None:
                self._on_progress(first, len(ids))
            logits = self._session.evaluate(ids[first : first + PIECE_TOKENS])
        return logits


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with together."""
    n = min(len(a), len(b))
    return next((index for index in range(n) if a[index] != b[index]), n)
