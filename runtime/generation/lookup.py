"""Prompt lookup: guesses the next tokens from what was read already, and lets the model check them in one step.

The last tokens are looked for in the text so far. Where they stood before, what followed them then is the guess (the
*draft*). The model evaluates it together with the newest token; each guess that it draws itself, too, costs no step of
its own. Summaries, edits and code repeat much of their prompt.

A guess costs time, so after a draft that was all wrong, guesses are only compared with what comes, until one would have
been right.

The engine computes each draft with the arithmetic of a step of one token, and a token is drawn from the same logits as
without lookup: the text is the same, at any temperature.

Source: Saxena 2023, "Prompt Lookup Decoding".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from iqrun.engine.steps import Way

Floats = npt.NDArray[np.float32]

MIN_NGRAM, MAX_NGRAM = 2, 3  # tokens that must agree; the longest run is tried first
FIRST_DRAFT, MAX_DRAFT = 2, 16  # tokens guessed at first, and at most


class DraftSession(Protocol):
    """What lookup needs of a `Session`."""

    n_ctx: int

    def __len__(self) -> int:
        """Tokens evaluated so far."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens evaluated so far."""

    def evaluate(self, ids: Sequence[int], want: object = "last", way: Way | None = None) -> Floats:
        """Appends tokens; logits of the last, or of all."""

    def truncate(self, length: int) -> None:
        """Keeps only the first `length` tokens."""


class Lookup:
    """A session that evaluates guesses ahead; takes its place in `iqrun.generation.generate.generate`.

    The session behind it may hold guesses that are not confirmed; `close` takes them back.

    Attributes:
        n_ctx: tokens that fit.
        n_drafted: tokens guessed so far.
        n_accepted: how many of them came.
    """

    def __init__(self, session: DraftSession) -> None:
        """Takes a session, which nobody else uses meanwhile."""
        self._session = session
        self.n_ctx = session.n_ctx
        self._index = NgramIndex()
        self._index.extend(session.tokens)
        self._draft: list[int] = []  # evaluated, but not confirmed
        self._rows: list[Floats] = []  # logits after each of them
        self._n_right = FIRST_DRAFT // 2  # of the latest draft
        self._is_trusted = True  # the latest guess came true
        self._unpaid: int | None = None  # a guess that was not computed
        self.n_drafted = self.n_accepted = 0

    def __len__(self) -> int:
        return len(self._index.tokens)

    def recent(self, n: int) -> list[int]:
        """The last `n` tokens that are confirmed."""
        return self._index.tokens[-n:] if n > 0 else []

    def evaluate(self, ids: Sequence[int]) -> Floats:
        """Appends tokens; logits of the last. A guess that comes true costs nothing."""
        if len(ids) == 1 and self._draft and ids[0] == self._draft[0]:
            self.n_accepted += 1
            self._n_right += 1
            self._draft.pop(0)
            self._index.extend(ids)
            return self._rows.pop(0)
        if self._draft or self._n_right:
            self._is_trusted = self._n_right > 0
        self.close()
        if len(ids) > 1:
            logits = self._session.evaluate(ids)
            self._index.extend(ids)
            return logits
        return self._evaluate_with_draft(ids[0])

    def close(self) -> None:
        """Takes back what was guessed and not confirmed."""
        self._draft, self._rows = [], []
        if len(self._session) > len(self):
            self._session.truncate(len(self))

    def _evaluate_with_draft(self, token: int) -> Floats:
        draft = self._next_draft(token)
        rows = (
            self._session.evaluate([token, *draft], want="all", way="decode")
            if draft
            else self._session.evaluate([token])[None]  # the same bits, sooner
        )
        self._index.extend((token,))
        self._draft, self._rows, self._n_right = draft, list(rows[1:]), 0
        self.n_drafted += len(draft)
        logits: Floats = rows[0]
        return logits

    def _next_draft(self, token: int) -> list[int]:
        """The tokens to compute ahead; none where the latest guess was wrong."""
        if self._unpaid is not None:
            self._is_trusted = self._unpaid == token
        room = max(self.n_ctx - len(self) - 1, 0)
        wanted = min(max(2 * self._n_right, FIRST_DRAFT), MAX_DRAFT, room)  # where guesses came true, more will
        draft = self._index.guess(token, wanted)
        self._unpaid = draft[0] if draft and not self._is_trusted else None
        return draft if self._is_trusted else []


class NgramIndex:
    """Tokens, and where each short run of them ended last.

    Attributes:
        tokens: all of them.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}

    def extend(self, ids: Sequence[int]) -> None:
        """Appends tokens."""
        for token in ids:
            end = len(self.tokens)
            for n in range(MIN_NGRAM, min(MAX_NGRAM, end) + 1):
                self._after[tuple(self.tokens[end - n :])] = end
            self.tokens.append(int(token))

    def guess(self, token: int, n: int) -> list[int]:
        """The `n` tokens that follow if the text goes on as after the last run that equals its end with `token`.

        Where that is near the end, the text is taken to repeat itself. Empty if there was no such run.
        """
        tail = [*self.tokens[1 - MAX_NGRAM :], int(token)]
        for first in range(len(tail) - MIN_NGRAM + 1):
            place = self._after.get(tuple(tail[first:]))
            if place is not None:
                following = [*self.tokens[place : place + n], int(token)]
                return [following[i % len(following)] for i in range(n)]
        return []
