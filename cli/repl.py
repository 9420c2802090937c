"""The conversation loop of `iqrun chat`: reads a line, runs a command or gives an answer, until there are no lines.

It knows no terminal: it reads through a function, and shows answers through `write` and everything else through `note`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeAlias

from iqrun.errors import IqrunError

if TYPE_CHECKING:
    from iqrun import Chat, SamplingOptions
    from iqrun.generate import Timings

Read: TypeAlias = Callable[[str], "str | None"]  # prompt -> line, None at the end
Show: TypeAlias = Callable[[str], None]

PROMPT, CONTINUED = "> ", "  "

# name on the command line: field of SamplingOptions
_OPTIONS = {
    "temp": "temperature",
    "top-k": "top_k",
    "top-p": "top_p",
    "min-p": "min_p",
    "repeat-penalty": "repeat_penalty",
    "seed": "seed",
}


@dataclass
class Settings:
    """What `/set` changes.

    Attributes:
        sampling: how tokens are chosen.
        max_tokens: most tokens per answer; None has no limit.
    """

    sampling: SamplingOptions
    max_tokens: int | None = None

    def options(self) -> dict[str, Any]:
        """As `Chat.send` takes them."""
        return {"max_tokens": self.max_tokens, **asdict(self.sampling)}

    def shown(self) -> str:
        """The names and values, as `/set` takes them."""
        values = {name: getattr(self.sampling, field) for name, field in _OPTIONS.items()} | {"n": self.max_tokens}
        return "  ".join(f"{name} {'none' if value is None else value}" for name, value in values.items())

    def set(self, name: str, text: str) -> None:
        """Changes one value.

        Raises:
            ValueError: there is no such name, or the value is not in its range.
        """
        if name == "n":
            max_tokens = _number(text, name)
            if max_tokens is not None and max_tokens < 1:
                raise ValueError("n must be at least 1, or none")
            self.max_tokens = max_tokens
        elif name in _OPTIONS:
            self.sampling = replace(self.sampling, **{_OPTIONS[name]: _number(text, name)})
        else:
            raise ValueError(f"there is no option {name}; there are {', '.join([*_OPTIONS, 'n'])}")


def _number(text: str, name: str) -> Any:
    """An integer for the options that count, else a float; None for ``none`` where that means something."""
    if text == "none" and name in ("seed", "n"):
        return None
    try:
        return int(text) if name in ("top-k", "seed", "n") else float(text)
    except ValueError:
        raise ValueError(f"{text} is not a value for {name}") from None


class _Leave(Exception):  # noqa: N818 - a way out, not an error
    """Ends the loop."""


class Repl:
    """One conversation and its commands."""

    def __init__(self, chat: Chat, settings: Settings, *, write: Show, note: Show, interactive: bool = True) -> None:
        """Takes a chat and where to show what.

        Args:
            chat: the conversation.
            settings: how answers are generated.
            write: shows a piece of an answer.
            note: shows a line that is not part of an answer.
            interactive: Ctrl-C stops an answer; else it ends the loop like any other error.
        """
        self._interactive = interactive
        self._chat, self._settings = chat, settings
        self._write, self._note = write, note
        self._n_skipped = 0

    @staticmethod
    def command_names() -> list[str]:
        """Everything that `/` can begin."""
        return [f"/{name}" for name in _COMMANDS]

    def run(self, read: Read) -> None:
        """Goes on until there are no more lines or `/exit`; Ctrl-C gives up what is being typed."""
        while self._next(read):
            pass

    def _next(self, read: Read) -> bool:
        """One message or command; False at the end."""
        try:
            line = self._read_message(read)
            if line is not None:
                self._turn(line)
        except _Leave:
            return False
        except (IqrunError, ValueError) as error:
            self._note(f"error: {error}")
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            self._note("(Ctrl-D or /exit leaves)")
        else:
            return line is not None
        return True

    def _turn(self, line: str) -> None:
        text = line.strip()
        if text.startswith("/"):
            self._command(text)
        elif text:
            self._answer(self._chat.send(line, **self._settings.options()))

    def _read_message(self, read: Read) -> str | None:
        """A line, or several that end with a backslash; None at the end."""
        parts: list[str] = []
        while (line := read(CONTINUED if parts else PROMPT)) is not None:
            if not line.endswith("\\"):
                return "\n".join([*parts, line])
            parts.append(line[:-1])
        return "\n".join(parts) if parts else None

    def _answer(self, pieces: Iterator[str]) -> None:
        """Shows an answer; Ctrl-C stops it and keeps the conversation."""
        begun = False
        try:
            with closing(pieces):  # type: ignore[type-var]  # a generator
                for piece in pieces:
                    begun = True
                    self._write(piece)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            self._write("\n" if begun else "")
            self._note("[stopped]")
            return
        except IqrunError:
            self._write("\n" if begun else "")
            raise
        self._write("\n")
        self._report()

    def _report(self) -> None:
        """The line of numbers behind an answer, and what the user should know about its end."""
        last = self._chat.last
        if last is None or last.timings is None:
            return
        self._note(f"[{_speed(last.timings)}; {self._context()}]")
        if last.finish_reason == "length":
            self._note(f"[cut after {self._settings.max_tokens} tokens; /set n changes that]")
        if last.finish_reason == "context":
            self._note("[cut: the context is full; /undo or /clear makes room]")
        if self._chat.n_skipped > self._n_skipped:
            self._note(f"[the model does not see the oldest {self._chat.n_skipped} messages any more: no room]")
        self._n_skipped = self._chat.n_skipped

    def _context(self) -> str:
        return f"context {self._chat.n_tokens}/{self._chat.n_ctx}"

    # ---- commands ----

    def _command(self, text: str) -> None:
        word, _, rest = text[1:].partition(" ")
        found = _COMMANDS.get(word)
        if found is None:
            near = get_close_matches(word, _COMMANDS, n=1, cutoff=0.5)
            hint = f"did you mean /{near[0]}?" if near else "/help lists the commands"
            self._note(f"unknown command /{word}; {hint}")
            return
        found[0](self, rest.strip())

    def _help(self, _: str) -> None:
        for name, (_function, usage, what) in _COMMANDS.items():
            if usage is not None:
                self._note(f"  {f'/{name} {usage}'.rstrip():<20} {what}")
        self._note("  A line that ends with \\ goes on in the next one (in a terminal also: Alt-Enter).")

    def _clear(self, _: str) -> None:
        self._chat.clear()
        self._n_skipped = 0
        self._note("the conversation starts anew")

    def _regen(self, _: str) -> None:
        self._answer(self._chat.regenerate(**self._settings.options()))

    def _undo(self, _: str) -> None:
        question = self._chat.undo()
        self._note("there is nothing to take back" if question is None else f"took back: {question}")

    def _system(self, text: str) -> None:
        if text:
            self._chat.system = None if text == "none" else text
        system = self._chat.system
        self._note("there is no system message" if system is None else f"system message: {system}")

    def _set(self, text: str) -> None:
        if text:
            name, _, value = text.partition(" ")
            self._settings.set(name, value.strip())
        self._note(self._settings.shown())

    def _stats(self, _: str) -> None:
        last = self._chat.last
        speed = "no answer yet" if last is None or last.timings is None else _speed(last.timings)
        self._note(f"{speed}; {self._context()}; {len(self._chat.messages)} messages")

    def _exit(self, _: str) -> None:
        raise _Leave


# name: function, its argument (None: an alias, not shown in /help), what it does
_COMMANDS: dict[str, tuple[Callable[[Repl, str], None], str | None, str]] = {
    "help": (Repl._help, "", "list the commands"),
    "exit": (Repl._exit, "", "leave (also /bye, Ctrl-D)"),
    "bye": (Repl._exit, None, ""),
    "quit": (Repl._exit, None, ""),
    "clear": (Repl._clear, "", "forget the conversation"),
    "regen": (Repl._regen, "", "give the last answer anew"),
    "undo": (Repl._undo, "", "take back the last question and its answer"),
    "system": (Repl._system, "[TEXT|none]", "show or change the system message"),
    "set": (Repl._set, "[NAME VALUE]", "show or change the sampling options"),
    "stats": (Repl._stats, "", "speed and context"),
}


def _speed(timings: Timings) -> str:
    return (
        f"{timings.n_generated} tokens, {timings.generated_per_second:.0f} tokens/s; "
        f"prompt {timings.n_prompt} tokens, {timings.prompt_per_second:.0f} tokens/s"
    )
