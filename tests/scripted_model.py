"""A model that says what it is told to, with the demo model's vocabulary and template: for tests of conversations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from iqrun.chat.chat import Chat
from iqrun.errors import ContextFullError, StateError
from iqrun.gguf import GGUFFile
from iqrun.models.demo import model_path
from iqrun.tokenizer import Tokenizer


class ScriptedSession:
    """A session whose model says what it is told to: token by token, then the end of the turn.

    How far an answer has come is read off the tokens, so it goes on wherever they are evaluated anew.
    """

    def __init__(self, tokenizer: Tokenizer, answers: Iterable[str], n_ctx: int) -> None:
        self.n_ctx = n_ctx
        self.evaluated: list[list[int]] = []
        self.fail_at: BaseException | None = None
        self._tokens: list[int] = []
        self._n_vocab = tokenizer.n_vocab
        self._begin, end = (tokenizer.token_id(mark) for mark in ("<|assistant|>", "<|end|>"))
        self._answers = ([*tokenizer.encode(answer, add_special=False), end] for answer in answers)
        self._answer: list[int | None] = next(self._answers, [end])
        self._begun = False
        self._n_single = 0

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def recent(self, n: int) -> list[int]:
        return self._tokens[-n:] if n > 0 else []

    def truncate(self, length: int) -> None:
        del self._tokens[length:]

    def close(self) -> None:
        self._tokens.clear()

    def save_state(self) -> bytes:
        return bytes(str(self._tokens), "ascii")

    def load_state(self, data: bytes) -> None:
        if not data.startswith(b"["):
            raise StateError("this state is damaged")
        self._tokens = json.loads(data)

    def evaluate(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        if self.fail_at is not None:
            error, self.fail_at = self.fail_at, None
            raise error
        if len(self._tokens) + len(ids) > self.n_ctx:
            raise ContextFullError("no room")
        self._tokens += ids
        self.evaluated.append(list(ids))
        logits = np.zeros(self._n_vocab, np.float32)
        logits[self._next_token(len(ids))] = 9.0
        return logits

    def _next_token(self, n_new: int) -> int:
        """An answer counts as given when its second token is asked for: reading a prompt in pieces uses up none."""
        self._n_single = self._n_single + 1 if n_new == 1 else 0
        place = self._n_single  # for templates without a mark at the beginning of an answer
        if self._begin in self._tokens:
            place = self._tokens[::-1].index(self._begin)
        if place == 0 and self._begun:
            self._answer, self._begun = next(self._answers), False
        self._begun = self._begun or place > 0
        token = self._answer[min(place, len(self._answer) - 1)]
        assert token is not None
        return token


class ScriptedModel:
    """The demo model's vocabulary and template around a scripted session."""

    def __init__(self, *answers: str, n_ctx: int = 200) -> None:
        self._file = GGUFFile(model_path())
        self.tokenizer = Tokenizer.from_gguf(self._file)
        self.path = "scripted.gguf"
        self.only_session = ScriptedSession(self.tokenizer, answers, n_ctx)

    @property
    def metadata(self) -> Any:
        return self._file.metadata

    def session(self) -> ScriptedSession:
        return self.only_session

    def chat(self, **options: Any) -> Chat:
        return Chat(self, **options)
