"""The chat's way to the terminal, or to a pipe: reading messages, showing answers, the clipboard."""

from __future__ import annotations

import os
import shutil
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from iqrun.cli import ui

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

    from iqrun.cli.answer_view import AnswerView
    from iqrun.cli.markdown import Markdown
    from iqrun.cli.repl import Read, Repl


def answer_view(*, plain: bool = False) -> AnswerView:
    """What shows answers on stdout: in a terminal safely and broken at words, else as they are.

    Markdown needs a terminal that knows styles, and neither `plain` nor ``NO_COLOR``; the bar needs somebody at the
    keyboard, and not `plain`.
    """
    from iqrun.cli.answer_view import AnswerView

    if not sys.stdout.isatty():
        return AnswerView(_write)
    if os.environ.get("TERM", "dumb") == "dumb":
        return AnswerView(_write, terminal=True)
    from iqrun.cli.status_bar import StatusBar
    from iqrun.cli.wrap import WordWrap

    interactive = sys.stdin.isatty()
    return AnswerView(
        _write,
        wrap=WordWrap(_columns),
        markdown=None if plain or os.environ.get("NO_COLOR") else _markdown,
        bar=StatusBar(_write, _columns) if interactive and not plain else None,
        keys=_silent_keys if interactive else nullcontext,
        terminal=True,
    )


def _markdown(base: str) -> Markdown:
    """With signs that the terminal's encoding has."""
    from iqrun.cli.markdown import Markdown

    try:
        "•│─".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return Markdown(base=base, bullet="-", bar="|", line="-")
    return Markdown(base=base)


def _columns() -> int:
    return shutil.get_terminal_size().columns


@contextmanager
def _silent_keys() -> Iterator[None]:
    """Keys that are hit while an answer comes are not shown in it; the next prompt takes them."""
    import termios

    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, OSError):
        yield
        return
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def note(text: str) -> None:
    """Shows a line that is not part of an answer, on stderr; what it quotes must not steer the terminal."""
    text = ui.without_controls(text)
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from iqrun.cli.wrap import WordWrap

        wrap = WordWrap(_columns)
        wrap.hang = "    " if text.startswith("  ") else ""
        text = wrap.feed(text)
    ui.stderr(text)


def copy(text: str) -> None:
    """Asks the terminal to put a text on the clipboard, also through SSH (control sequence OSC 52)."""
    _write(f"\x1b]52;c;{b64encode(text.encode('utf-8', 'replace')).decode('ascii')}\x07")


def pipe_reader() -> Read:
    """Reads messages from stdin, a line each."""

    def read(prompt: str, default: str = "") -> str | None:
        line = sys.stdin.readline()
        return line.rstrip("\r\n") if line else None

    return read


def prompt_reader(repl: Repl) -> Read:
    """Reads messages with editing, history across runs and completion of commands."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.shortcuts import CompleteStyle
    from prompt_toolkit.styles import Style

    from iqrun.cli.status_bar import fit

    session: PromptSession[str] = PromptSession(
        history=_history(),
        key_bindings=_keys(repl),
        multiline=True,
        completer=_completer(repl),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
        prompt_continuation="  ",
        bottom_toolbar=None if repl.view.bar is None else lambda: [("reverse", fit(repl.status(), _columns()))],
        style=Style([("bottom-toolbar", "noreverse")]),
    )

    def read(prompt: str, default: str = "") -> str | None:
        try:
            return session.prompt([("bold", prompt)], default=default)
        except EOFError:
            return None

    return read


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _keys(repl: Repl) -> KeyBindings:
    """Enter sends and Alt-Enter begins a line; after `/multiline` the other way round."""
    from prompt_toolkit.filters import is_searching
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.key_binding.bindings.search import accept_search_and_accept_input

    keys = KeyBindings()
    keys.add("enter", filter=is_searching)(accept_search_and_accept_input)  # as other shells do behind Ctrl-R

    def act(event: KeyPressEvent, *, sends: bool) -> None:
        if sends:
            event.current_buffer.validate_and_handle()
        else:
            event.current_buffer.insert_text("\n")

    @keys.add("enter", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        is_command = event.current_buffer.text.startswith("/")  # a way back from /multiline
        act(event, sends=not repl.multiline or is_command)

    @keys.add("escape", "enter", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        act(event, sends=repl.multiline)

    return keys


def _completer(repl: Repl) -> Completer:
    from prompt_toolkit import completion
    from prompt_toolkit.document import Document

    class Commands(completion.Completer):
        """Completes the last word as the loop says."""

        def get_completions(
            self, document: Document, complete_event: completion.CompleteEvent
        ) -> Iterator[completion.Completion]:
            text = document.text_before_cursor
            length = len(text.rpartition(" ")[2])
            for found in repl.complete(text):
                yield completion.Completion(found, start_position=-length)

    return Commands()


def _history() -> History:
    """What was typed in earlier runs; kept in memory only where the file cannot be written."""
    from platformdirs import user_data_path
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    path = user_data_path("iqrun") / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("ab"):
            return FileHistory(str(path))
    except OSError:
        return InMemoryHistory()
