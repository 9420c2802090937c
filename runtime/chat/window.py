"""What a model still reads of a conversation that has outgrown its context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

Message: TypeAlias = dict[str, str]
ContextPolicy: TypeAlias = Literal["drop", "shift", "stop"]
POLICIES: tuple[ContextPolicy, ...] = ("drop", "shift", "stop")


class Window:
    """The end of a conversation: whole exchanges are left out, and letters of the oldest one that is left.

    An exchange is a question with its answer: templates refuse conversations that begin with an answer. The last
    question is never touched.

    Attributes:
        n_skipped: messages, from the oldest on, that are left out.
        n_cut: letters left out at the beginning of the exchange behind them, first of its question, then of its answer.
    """

    def __init__(self, n_skipped: int = 0, n_cut: int = 0) -> None:
        self.n_skipped, self.n_cut = n_skipped, n_cut

    def visible(self, messages: Sequence[Message]) -> list[Message]:
        """The messages that the model reads."""
        shown = [dict(message) for message in messages[self.n_skipped :]]
        left = self.n_cut
        for message in shown[:-1]:
            content = message["content"]
            message["content"] = content[left:]
            left = max(left - len(content), 0)
        return shown

    def drop(self, messages: Sequence[Message], fits: Callable[[], bool]) -> None:
        """Leaves out exchanges, oldest first, until it fits or only the last question is left."""
        while not fits() and (begin := self._second_exchange(messages)) is not None:
            self.n_skipped, self.n_cut = begin, 0

    def shift(self, messages: Sequence[Message], fits: Callable[[], bool]) -> None:
        """Leaves out as few letters as it takes to fit, or all before the last question."""
        start, n_cut = self.n_skipped, self.n_cut
        low, high = n_cut, sum(len(message["content"]) for message in messages[start:-1])
        if low < high and not fits():
            while low < high:
                self.n_cut = (low + high) // 2
                if fits():
                    high = self.n_cut
                else:
                    low = self.n_cut + 1
            self.n_cut = low
        self._skip_what_is_cut(messages)

    def shorten(self, n_messages: int) -> None:
        """After the conversation lost its end."""
        if self.n_skipped >= n_messages:
            self.n_skipped, self.n_cut = n_messages, 0

    def copy(self) -> Window:
        """Another one with the same beginning."""
        return Window(self.n_skipped, self.n_cut)

    def _skip_what_is_cut(self, messages: Sequence[Message]) -> None:
        while (begin := self._second_exchange(messages)) is not None:
            length = sum(len(message["content"]) for message in messages[self.n_skipped : begin])
            if self.n_cut < length:
                break
            self.n_skipped, self.n_cut = begin, self.n_cut - length

    def _second_exchange(self, messages: Sequence[Message]) -> int | None:
        """Where the exchange behind the oldest one begins; None if there is none."""
        later = range(self.n_skipped + 1, len(messages))
        return next((index for index in later if messages[index]["role"] == "user"), None)
