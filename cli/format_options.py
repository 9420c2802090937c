"""The options that say what a text must look like: ``--json-schema``, ``--grammar`` and ``--json``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iqrun import Grammar


def add_format_options(parser: argparse.ArgumentParser) -> None:
    """Adds them; only one may be given."""
    group = parser.add_argument_group("form of the answer").add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="a JSON object")
    group.add_argument("--json-schema", metavar="FILE", help="JSON that the schema in FILE describes")
    group.add_argument("--grammar", metavar="FILE", help="text of a grammar: GBNF, or Lark if FILE ends in .lark")


def response_format(args: argparse.Namespace) -> Grammar | None:
    """The grammar that the options name; None if there is none.

    Raises:
        GrammarError: it has a mistake.
        OSError: the file cannot be read.
    """
    if not (args.json or args.json_schema or args.grammar):
        return None
    from iqrun import Grammar, GrammarError

    if args.json:
        return Grammar.json()
    path = Path(args.json_schema or args.grammar)
    read = Grammar.json_schema if args.json_schema else Grammar.lark if path.suffix == ".lark" else Grammar.gbnf
    try:
        return read(path.read_text(encoding="utf-8"))
    except (GrammarError, UnicodeDecodeError) as error:
        raise GrammarError(f"{path}: {error}") from error
