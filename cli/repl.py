"""The conversation loop of `iqrun chat`: reads a line, runs a command or gives an answer, until there are no lines.

It knows no terminal: it reads through a function, and shows answers through a view and everything else through `note`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Protocol, TypeAlias

from iqrun.cli import commands, completion, file_commands
from iqrun.errors import IqrunError

if TYPE_CHECKING:
    from iqrun import Chat, Model
    from iqrun.cli.answer_view import AnswerView
    from iqrun.cli.conversations import Store
    from iqrun.cli.settings import Settings
    from iqrun.generation.generate import Timings

Show: TypeAlias = Callable[[str], None]

PROMPT, CONTINUED, QUOTES = "> ", "  ", '"""'


class Read(Protocol):
    """Reads a line."""

    def __call__(self, prompt: str, default: str = "") -> str | None:
        """The line typed behind a prompt, where `default` stands for editing; None at the end."""


class Leave(Exception):  # noqa: N818 - a way out, not an error
    """Ends the loop."""


class Repl:
    """One conversation and its commands.

    Attributes:
        chat: the conversation.
        settings: how answers are generated.
        model: whose conversation it is.
        store: where conversations are saved.
        view: shows answers.
        note: shows a line that is not part of an answer.
        copy: puts a text on the clipboard; None where there is none.
        read: reads a line.
        multiline: in a terminal, Enter begins a new line instead of sending.
        attached: texts that join the next message.
    """

    def __init__(
        self,
        chat: Chat,
        settings: Settings,
        *,
        model: Model,
        store: Store,
        view: AnswerView,
        note: Show,
        copy: Show | None = None,
        interactive: bool = True,
    ) -> None:
        """Takes a chat and where to show what.

        Args:
            chat: the conversation.
            settings: how answers are generated.
            model: the model behind the chat.
            store: where conversations are saved.
            view: shows answers.
            note: shows a line that is not part of an answer.
            copy: puts a text on the clipboard.
            interactive: Ctrl-C stops an answer; else it ends the loop like any other error.
        """
        self.chat, self.settings, self.model, self.store = chat, settings, model, store
        self.view, self.note, self.copy, self.interactive = view, note, copy, interactive
        self.read: Read = lambda prompt, default="": None
        self.multiline = False
        self.attached: list[str] = []
        self._n_left_out = (0, 0)
        self._use_settings()
        view.status = self.status
        chat.on_progress = view.progress

    def run(self, read: Read) -> None:
        """Goes on until there are no more lines or `/exit`; Ctrl-C gives up what is being typed."""
        self.read = read
        while self._next():
            pass

    def complete(self, text: str) -> list[str]:
        """What the last word of a beginning may become."""
        return completion.complete(self, text)

    def answer(self, pieces: Iterator[str]) -> None:
        """Shows an answer; Ctrl-C stops it and keeps the conversation."""
        self._use_settings()
        try:
            with self.view, closing(pieces):  # type: ignore[type-var]  # a generator
                for piece in pieces:
                    self.view.write(piece)
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            self.note("[stopped]")
        else:
            self._report()
        self._tell_left_out()

    def context(self) -> str:
        """How full the context is."""
        return f"context {self.chat.n_tokens}/{self.chat.n_ctx}"

    def status(self) -> list[str]:
        """What the bar shows, the most important first."""
        timings = self.chat.timings
        per_second = timings.generated_per_second if timings is not None else 0.0
        speed = [f"{per_second:.{1 if per_second < 100 else 0}f} tokens/s"] if per_second else []
        return [self.context(), *speed, file_commands.model_name(self)]

    def forget_left_out(self) -> None:
        """After a change of the conversation: what is left out now was not told."""
        self._n_left_out = (self.chat.n_skipped, self.chat.n_cut)

    def _use_settings(self) -> None:
        self.chat.context_full = self.settings.context_full
        self.view.think = self.settings.think

    def _next(self) -> bool:
        """One message or command; False at the end."""
        try:
            line = self._read_message()
            if line is not None:
                self._turn(line)
        except Leave:
            return False
        except (IqrunError, ValueError, OSError) as error:
            self.note(f"error: {error}")
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            self.note("(Ctrl-D or /exit leaves)")
        else:
            return line is not None
        return True

    def _turn(self, line: str) -> None:
        text = line.strip()
        if text.startswith("/"):
            commands.run(self, text)
        elif text:
            message = "\n\n".join([*self.attached, line])
            self.answer(self.chat.send(message, **self.settings.options()))
            self.attached.clear()

    def _read_message(self) -> str | None:
        r"""A line, or several: that end with a backslash, or stand between \"\"\"; None at the end."""
        line = self.read(PROMPT)
        if line is None or self.multiline:
            return line
        if line.startswith(QUOTES):
            return self._read_quoted(line.removeprefix(QUOTES))
        parts: list[str] = []
        while line is not None and line.endswith("\\"):
            parts.append(line[:-1])
            line = self.read(CONTINUED)
        return "\n".join([*parts, *([] if line is None else [line])])

    def _read_quoted(self, line: str | None) -> str:
        parts: list[str] = []
        while line is not None and not line.rstrip().endswith(QUOTES):
            parts.append(line)
            line = self.read(CONTINUED)
        if line is not None:
            parts.append(line.rstrip().removesuffix(QUOTES))
        return "\n".join(parts).strip("\n")

    def _report(self) -> None:
        """The line of numbers behind an answer, and what the user should know about its end."""
        last = self.chat.last
        if last is None or last.timings is None:
            return
        if self.view.bar is None:
            self.note(f"[{speed(last.timings)}; {self.context()}]")
        if last.finish_reason == "length":
            self.note(f"[cut after {self.settings.max_tokens} tokens; /set n changes that]")
        if last.finish_reason == "context":
            self.note("[cut: the context is full; /undo or /clear makes room]")

    def _tell_left_out(self) -> None:
        """What the model does not see any more, once for each time."""
        n_skipped, n_cut = self.chat.n_skipped, self.chat.n_cut
        if (n_skipped, n_cut) > self._n_left_out:
            skipped = f"the oldest {n_skipped} messages" if n_skipped else ""
            cut = f"{n_cut} letters of the {'next' if n_skipped else 'oldest'} ones" if n_cut else ""
            left_out = " and ".join(filter(None, (skipped, cut)))
            self.note(f"[the model does not see {left_out} any more: the context was full]")
        self._n_left_out = (n_skipped, n_cut)


def speed(timings: Timings) -> str:
    """Tokens and tokens per second."""
    return (
        f"{timings.n_generated} tokens, {timings.generated_per_second:.0f} tokens/s; "
        f"prompt {timings.n_prompt} tokens, {timings.prompt_per_second:.0f} tokens/s"
    )
