"""The `iqrun` command line: finds the chosen command, runs it, and turns errors into one line and an exit code.

A command is a module of this package, named in `COMMANDS` and imported only when it is chosen. It exports:

- ``HELP``: one line, the same as in `COMMANDS` (a test compares them);
- ``EXAMPLES``: text printed below its ``--help``, one example a line;
- ``configure(parser: argparse.ArgumentParser) -> None``: adds its options;
- ``run(args: argparse.Namespace) -> int``: does the work, prints the answer on stdout, and returns 0 (or another code).

Exit codes: 0 done; 1 the work failed (`IqrunError`, `OSError`, out of memory); 2 the command line is wrong
(argparse, or a `ValueError` from an option's value); 130 stopped by Ctrl-C, 143 by SIGTERM. A closed pipe ends the
command silently. ``--debug`` shows the traceback of an error.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Protocol, cast

COMMANDS = {
    "chat": "talk to a model",
    "demo": "quantize the packaged story model and talk to it",
    "run": "complete one prompt",
    "quantize": "write a quantized copy of a GGUF file",
    "imatrix": "compute an importance matrix from a text",
    "inspect": "show what a GGUF file holds",
    "tokenize": "show the tokens of a text",
    "fit": "say which types of a model fit here, and how fast they run",
    "bench": "measure prefill and decode speed",
    "perplexity": "measure how well a model predicts a text",
    "compare": "compare the quality and size of several files of a model",
}


class Command(Protocol):
    """What a command module exports."""

    HELP: str
    EXAMPLES: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's options."""

    def run(self, args: argparse.Namespace) -> int:
        """Does the work; returns the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `iqrun` with the given arguments (default: the process's) and returns the exit code."""
    if argv is None:
        _clean_up_when_terminated()
    words = list(sys.argv[1:] if argv is None else argv)
    debug = False
    try:
        _open_missing_streams()
        _accept_all_text()
        args, command = _parse(words or ["--help"])
        debug = args.debug
        if argv is None:
            _guard_files()
        code = command.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except KeyboardInterrupt:
        return _failed("stopped", 130, debug)
    except ValueError as error:
        return _failed(str(error), 2, debug)
    except MemoryError as error:
        return _failed(str(error) or "out of memory", 1, debug)
    except OSError as error:
        return _failed(_os_message(error), 1, debug)
    except Exception as error:
        from iqrun.errors import IqrunError

        if not isinstance(error, IqrunError):
            raise
        return _failed(str(error), 1, debug)


def _parse(words: list[str]) -> tuple[argparse.Namespace, Command]:
    """The arguments and the module of the command they name; only that module is imported."""
    parser = argparse.ArgumentParser(
        prog="iqrun",
        description="Quantize language models to the IQ*_K types and run them on CPUs.",
        epilog="Start with: iqrun demo",
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), "")
    modules: dict[str, Command] = {}
    for name, line in COMMANDS.items():
        sub = commands.add_parser(
            name, help=line, description=line, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        if name == chosen:
            modules[name] = cast(Command, import_module(f"iqrun.cli.{name}"))
            sub.epilog = f"examples:\n{modules[name].EXAMPLES.rstrip()}"
            modules[name].configure(sub)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args(words)
    return args, modules[args.command]


def _clean_up_when_terminated() -> None:
    """Lets SIGTERM and SIGHUP leave by the same way as an error, so that no temporary file stays behind."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP: so do we
            signal.signal(number, lambda received, _: sys.exit(128 + received))


def _guard_files() -> None:
    """Makes a model file that is cut short while it is in use an error."""
    import iqrun

    with suppress(iqrun.UnsupportedModelError):  # a system that needs no guard
        iqrun.guard_mapped_files()


def _open_missing_streams() -> None:
    """Lets a stream that the caller closed (``2>&-``) behave as ``/dev/null``."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def _accept_all_text() -> None:
    """Lets no answer fail because of its letters: what cannot be shown or read becomes a replacement character."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


class _ShowVersion(argparse.Action):
    """Looks the version up only when it is asked for: that takes 20 ms, which every command would wait for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("iqrun")
        except PackageNotFoundError:
            found = "(not installed)"
        print(f"iqrun {found}")
        parser.exit()


def _os_message(error: OSError) -> str:
    if error.filename is None:
        return error.strerror or str(error)
    return f"{error.filename}: {error.strerror}"


def _failed(message: str, code: int, debug: bool) -> int:
    """Reports the error being handled; returns the exit code."""
    from iqrun.cli.ui import printable

    if debug:
        import traceback

        traceback.print_exc()
    kind = "" if code == 130 else "error: "
    print(f"iqrun: {kind}{printable(' '.join(message.split()))}", file=sys.stderr)
    return code


def _silence_stdout() -> None:
    """Points stdout at nothing, so that the interpreter's last flush of a closed pipe stays quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
