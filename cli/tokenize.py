"""`iqrun tokenize`: shows the tokens of a text."""

from __future__ import annotations

import argparse
import sys

from iqrun.cli import ui

HELP = "show the tokens of a text"
EXAMPLES = """\
  iqrun tokenize -m model.gguf "Hello world"
  iqrun tokenize -m model.gguf --ids < story.txt
  iqrun tokenize -m model.gguf --parse-special --json "<|user|>Hi<|end|>"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "-m", "--model", required=True, metavar="FILE", help="GGUF file (a model or a vocabulary alone)"
    )
    parser.add_argument("text", metavar="TEXT", nargs="?", help="the text (default: stdin, to its end)")
    parser.add_argument("--no-special", action="store_true", help="no BOS or EOS around the text")
    parser.add_argument("--parse-special", action="store_true", help="read texts such as <|end|> as special tokens")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--ids", action="store_true", help="the ids alone, on one line")
    form.add_argument("--json", action="store_true", help="a list of objects with id, text and bytes (hexadecimal)")


def run(args: argparse.Namespace) -> int:
    """Prints the tokens."""
    import iqrun

    tokenizer = iqrun.Tokenizer.from_gguf(args.model)
    ui.warn(tokenizer.warnings)
    text = args.text if args.text is not None else _read_stdin()
    ids = tokenizer.encode(text, add_special=not args.no_special, parse_special=args.parse_special)
    if args.ids:
        print(*ids)
    elif args.json:
        ui.print_json(
            [{"id": i, "text": tokenizer.token_text(i), "bytes": tokenizer.token_bytes(i).hex()} for i in ids]
        )
    else:
        print("\n".join(f"{i:>7}  {ui.printable(tokenizer.token_text(i))}" for i in ids))
    return 0


def _read_stdin() -> str:
    """The text as it is: no translation of line ends; bytes that are not UTF-8 become U+FFFD."""
    return sys.stdin.buffer.read().decode("utf-8", "replace")
