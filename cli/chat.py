"""`iqrun chat`: a conversation in the terminal, or line by line through a pipe."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from iqrun.chat.window import POLICIES
from iqrun.cli import commands, format_options, options, terminal, ui
from iqrun.cli.answer_view import THINK

if TYPE_CHECKING:
    from iqrun import Model
    from iqrun.cli.repl import Repl
    from iqrun.cli.settings import Settings

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
    parser.add_argument(
        "--think",
        choices=THINK,
        default="dim",
        help="thinking sections of reasoning models: as they are, faint (default), or hidden",
    )
    parser.add_argument("--plain", action="store_true", help="no Markdown, no status bar: the text as it was written")
    parser.add_argument(
        "--context-full",
        choices=POLICIES,
        default="drop",
        help="drop (default): the oldest exchanges are left out; shift: the beginning of the oldest message, at last "
        "that of the answer itself; either frees half of the context and reads the rest again; stop: say so",
    )
    parser.add_argument("--load", metavar="NAME", help="go on with a conversation that was kept with /save")
    parser.add_argument(
        "--keep-state",
        action="store_true",
        help="/save also keeps what the model has read: after /load nothing is read again (large files)",
    )
    parser.add_argument(
        "--lookup", action="store_true", help="guess tokens from the conversation: the same text, sooner if it repeats"
    )
    parser.add_argument("-n", "--n-predict", type=int, metavar="N", help="most tokens per answer (default: no limit)")
    options.add_session_options(parser)
    format_options.add_format_options(parser)
    options.add_sampling_options(parser)


def run(args: argparse.Namespace) -> int:
    """Finds the model and talks."""
    settings(args)  # a wrong option is told before anything is loaded
    if args.model is None:
        args.model = _offer_demo(args)
        if args.model is None:
            return 0
    return talk(args)


def talk(args: argparse.Namespace, *, hint: str = "") -> int:
    """Loads ``args.model`` and runs the conversation until its end."""
    with options.load_model(args) as model:
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        repl = _repl(model, args, interactive)
        if interactive:
            name = model.metadata.get_str("general.name", model.path)
            threads = "1 thread" if model.n_threads == 1 else f"{model.n_threads} threads"
            terminal.note(f"{ui.printable(name)}, a context of {model.n_ctx} tokens, {threads}")
            terminal.note("/help lists commands, Ctrl-C stops an answer, Ctrl-D leaves")
            if hint:
                terminal.note(hint)
        if args.load is not None:
            commands.run(repl, f"/load {args.load}")
        repl.run(terminal.prompt_reader(repl) if interactive else terminal.pipe_reader())
    return 0


def _repl(model: Model, args: argparse.Namespace, interactive: bool) -> Repl:
    from platformdirs import user_data_path

    from iqrun.cli.conversations import Store
    from iqrun.cli.repl import Repl

    return Repl(
        model.chat(system=args.system),
        settings(args),
        model=model,
        store=Store(user_data_path("iqrun") / "conversations"),
        view=terminal.answer_view(plain=args.plain),
        note=terminal.note,
        copy=terminal.copy if interactive else None,
        interactive=interactive,
    )


def settings(args: argparse.Namespace) -> Settings:
    """How the options say that answers are generated and shown.

    Raises:
        GrammarError: a grammar or schema has a mistake.
        OSError: its file cannot be read.
        ValueError: a value is out of its range.
    """
    from iqrun.cli.settings import Settings

    return Settings(
        options.sampling(args),
        args.n_predict,
        args.think,
        args.context_full,
        lookup="on" if args.lookup else "off",
        keep_state="on" if args.keep_state else "off",
        response_format=format_options.response_format(args),
    )


def _offer_demo(args: argparse.Namespace) -> str | None:
    """The demo model's path if the user wants it, else None."""
    if not sys.stdin.isatty():
        raise ValueError("there is no model: give one with -m FILE, or try iqrun demo")
    ui.stderr("There is no model (-m FILE). Prepare the packaged story model and talk to it? [Y/n] ", end="")
    if sys.stdin.readline().strip().lower() not in ("", "y", "yes"):
        return None
    from iqrun.cli.demo import DEFAULT_TYPE, prepare

    return str(prepare(DEFAULT_TYPE, args.threads))
