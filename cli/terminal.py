"""The chat's way to the terminal, or to a pipe: reading messages, showing answers, the clipboard."""

from __future__ import annotations

import os
import shutil
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from iqrun.cli import ui

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

    from iqrun.cli.repl import Read, Repl, Show


def answer_writer() -> Show:
    """What shows the pieces of answers on stdout: in a terminal safely and broken at words, else as they are."""
    if not sys.stdout.isatty():
        return _write
    show: Callable[[str], str] = str
    if os.environ.get("TERM", "dumb") != "dumb":
        from iqrun.cli.wrap import WordWrap

        show = WordWrap(lambda: shutil.get_terminal_size().columns).feed
    return lambda text: _write(show(ui.without_controls(text)))


def note(text: str) -> None:
    """Shows a line that is not part of an answer, on stderr; what it quotes must not steer the terminal."""
    ui.stderr(ui.without_controls(text))


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

    session: PromptSession[str] = PromptSession(
        history=_history(),
        key_bindings=_keys(repl),
        multiline=True,
        completer=_completer(repl),
        complete_while_typing=False,
        prompt_continuation="  ",
    )

    def read(prompt: str, default: str = "") -> str | None:
        try:
            return session.prompt(prompt, default=default)
        except EOFError:
            return None

    return read


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _keys(repl: Repl) -> KeyBindings:
    """Enter sends and Alt-Enter begins a line; after `/multiline` the other way round."""
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    def act(event: KeyPressEvent, *, sends: bool) -> None:
        if sends:
            event.current_buffer.validate_and_handle()
        else:
            event.current_buffer.insert_text("\n")

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        is_command = event.current_buffer.text.startswith("/")  # a way back from /multiline
        act(event, sends=not repl.multiline or is_command)

    @keys.add("escape", "enter")
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
