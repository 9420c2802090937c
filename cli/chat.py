"""`iqrun chat`: a conversation in the terminal, or line by line through a pipe."""

from __future__ import annotations

import argparse
import sys
import unicodedata
from typing import TYPE_CHECKING

from iqrun.cli import options, ui

if TYPE_CHECKING:
    from prompt_toolkit.history import History

    from iqrun.cli.repl import Read, Repl

HELP = "talk to a model"
EXAMPLES = """\
  iqrun chat -m model.gguf
  iqrun chat -m model.gguf --system "You are a pirate." --temp 0.5
  echo "Tell me a story about a cat." | iqrun chat -m model.gguf
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("-m", "--model", metavar="FILE", help="GGUF file (without it: the packaged story model)")
    add_chat_options(parser)


def add_chat_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `chat` and `demo` share."""
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the first turn")
    parser.add_argument("-n", "--n-predict", type=int, metavar="N", help="most tokens per answer (default: no limit)")
    options.add_context_option(parser)
    options.add_thread_option(parser)
    parser.add_argument("--kv-type", choices=("f16", "f32"), default="f16", help="type of cached keys and values")
    options.add_sampling_options(parser)


def run(args: argparse.Namespace) -> int:
    """Finds the model and talks."""
    options.sampling(args)  # a wrong option is told before anything is loaded
    if args.model is None:
        args.model = _offer_demo(args)
        if args.model is None:
            return 0
    return talk(args)


def talk(args: argparse.Namespace, *, hint: str = "") -> int:
    """Loads ``args.model`` and runs the conversation until its end."""
    from iqrun.cli.repl import Repl, Settings

    with options.load_model(args) as model:
        settings = Settings(options.sampling(args), args.n_predict)
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        repl = Repl(model.chat(system=args.system), settings, write=write, note=ui.stderr, interactive=interactive)
        if interactive:
            name = model.metadata.get_str("general.name", model.path)
            ui.stderr(f"{ui.printable(name)}, a context of {model.n_ctx} tokens, {model.n_threads} threads")
            ui.stderr("/help lists commands, Ctrl-C stops an answer, Ctrl-D leaves")
            if hint:
                ui.stderr(hint)
        repl.run(_terminal_reader(repl) if interactive else _pipe_reader())
    return 0


def _offer_demo(args: argparse.Namespace) -> str | None:
    """The demo model's path if the user wants it, else None."""
    if not sys.stdin.isatty():
        raise ValueError("there is no model: give one with -m FILE, or try iqrun demo")
    ui.stderr("There is no model (-m FILE). Prepare the packaged story model and talk to it? [Y/n] ", end="")
    if sys.stdin.readline().strip().lower() not in ("", "y", "yes"):
        return None
    from iqrun.cli.demo import DEFAULT_TYPE, prepare

    return str(prepare(DEFAULT_TYPE, args.threads))


def write(text: str) -> None:
    """Shows a piece of an answer. A model's words must not steer the terminal: control characters are dropped."""
    if sys.stdout.isatty():
        text = "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) != "Cc")
    sys.stdout.write(text)
    sys.stdout.flush()


def _pipe_reader() -> Read:
    """Reads messages from stdin, a line each."""

    def read(_: str) -> str | None:
        line = sys.stdin.readline()
        return line.rstrip("\r\n") if line else None

    return read


def _terminal_reader(repl: Repl) -> Read:
    """Reads messages with editing, history across runs and completion of commands."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        history=_history(),
        key_bindings=keys,
        multiline=True,
        completer=WordCompleter(repl.command_names(), sentence=True),
        complete_while_typing=False,
        prompt_continuation="  ",
    )

    def read(prompt: str) -> str | None:
        try:
            return session.prompt(prompt)
        except EOFError:
            return None

    return read


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
