"""`iqrun chat`: a conversation in the terminal, or line by line through a pipe."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from iqrun.cli import options, terminal, ui

if TYPE_CHECKING:
    from iqrun import Model
    from iqrun.cli.repl import Repl

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
    with options.load_model(args) as model:
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        repl = _repl(model, args, interactive)
        if interactive:
            name = model.metadata.get_str("general.name", model.path)
            ui.stderr(f"{ui.printable(name)}, a context of {model.n_ctx} tokens, {model.n_threads} threads")
            ui.stderr("/help lists commands, Ctrl-C stops an answer, Ctrl-D leaves")
            if hint:
                ui.stderr(hint)
        repl.run(terminal.prompt_reader(repl) if interactive else terminal.pipe_reader())
    return 0


def _repl(model: Model, args: argparse.Namespace, interactive: bool) -> Repl:
    from platformdirs import user_data_path

    from iqrun.cli.conversations import Store
    from iqrun.cli.repl import Repl
    from iqrun.cli.settings import Settings

    return Repl(
        model.chat(system=args.system),
        Settings(options.sampling(args), args.n_predict),
        model=model,
        store=Store(user_data_path("iqrun") / "conversations"),
        write=terminal.answer_writer(),
        note=terminal.note,
        copy=terminal.copy if interactive else None,
        interactive=interactive,
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
