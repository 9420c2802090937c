"""The options that say how tokens are chosen, with llama.cpp's names: for the command line and for `/set`."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from iqrun import SamplingOptions


class Flag(NamedTuple):
    """One option.

    Attributes:
        name: as it is typed, without dashes.
        field: of `SamplingOptions`.
        parse: the value of a text; its name is part of the message if the text is wrong.
        metavar: what the help calls the value.
        help: one line; it ends with the default.
        many: whether there may be several values.
        aliases: other spellings on the command line, with dashes.
    """

    name: str
    field: str
    parse: Callable[[str], Any]
    metavar: str
    help: str
    many: bool = False
    aliases: tuple[str, ...] = ()


def seed(text: str) -> int | None:
    """A number, or ``none`` for a fresh one each time."""
    return None if text in ("none", "-1") else int(text)


def switch(text: str) -> bool:
    """``on`` or ``off``."""
    return {"on": True, "off": False}[text] if text in ("on", "off") else bool(int(text))


def token_bias(text: str) -> tuple[int, float]:
    """``15043+1`` or ``15043-inf``."""
    found = re.fullmatch(r"(\d+)([+-].+)", text)
    if found is None:
        raise ValueError(text)
    return int(found[1]), float(found[2])


def separator(text: str) -> str:
    r"""A text, in which ``\n`` and ``\t`` are what they are in C."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


FLAGS = (
    Flag("temp", "temperature", float, "T", "temperature, 0 = always the best (default 0.8)"),
    Flag("top-k", "top_k", int, "K", "among the K best, 0 = all (default 40)"),
    Flag("top-p", "top_p", float, "P", "among the best with this share (default 0.95)"),
    Flag("min-p", "min_p", float, "P", "at least P times the best (default 0.05)"),
    Flag("seed", "seed", seed, "S", "repeat a text (default none: a new one each time)", aliases=("-s",)),
    Flag("repeat-last-n", "repeat_last_n", int, "N", "penalties look N tokens back, -1 = all (default 64)"),
    Flag("repeat-penalty", "repeat_penalty", float, "R", "above 1: fewer repeats (default 1)"),
    Flag("presence-penalty", "presence_penalty", float, "X", "less of what occurred (default 0)"),
    Flag("frequency-penalty", "frequency_penalty", float, "X", "less for each time it occurred (default 0)"),
    Flag("dry-multiplier", "dry_multiplier", float, "X", "DRY: do not prolong repetitions, 0 = off (default 0)"),
    Flag("dry-base", "dry_base", float, "X", "DRY: growth of the penalty per token (default 1.75)"),
    Flag("dry-allowed-length", "dry_allowed_length", int, "N", "DRY: shorter repetitions are free (default 2)"),
    Flag("dry-penalty-last-n", "dry_penalty_last_n", int, "N", "DRY: look N tokens back, -1 = all (default 64)"),
    Flag(
        "dry-sequence-breaker",
        "dry_sequence_breakers",
        separator,
        "TEXT",
        r"DRY: repetitions end here; may be repeated, none = nowhere (default \n : " + '" *)',
        many=True,
    ),
    Flag("top-n-sigma", "top_n_sigma", float, "N", "within N standard deviations of the best (default -1: off)"),
    Flag("typical", "typical_p", float, "P", "locally typical tokens with this share (default 1: off)"),
    Flag("xtc-probability", "xtc_probability", float, "P", "how often XTC excludes the top choices (default 0)"),
    Flag("xtc-threshold", "xtc_threshold", float, "P", "share of a top choice for XTC (default 0.1)"),
    Flag("dynatemp-range", "dynatemp_range", float, "X", "temperature varies by X with the entropy (default 0)"),
    Flag("dynatemp-exp", "dynatemp_exponent", float, "X", "how it follows the entropy (default 1)"),
    Flag("mirostat", "mirostat", int, "0|2", "2: Mirostat 2 instead of the other samplers (default 0)"),
    Flag("mirostat-ent", "mirostat_tau", float, "X", "Mirostat: the surprise aimed at, in bits (default 5)"),
    Flag("mirostat-lr", "mirostat_eta", float, "X", "Mirostat: how fast it learns (default 0.1)"),
    Flag(
        "samplers",
        "samplers",
        str,
        "ORDER",
        "names with ; between, or letters (default penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature)",
        aliases=("--sampling-seq", "--sampler-seq"),
    ),
    Flag(
        "logit-bias",
        "logit_bias",
        token_bias,
        "TOKEN+BIAS",
        "make a token more or less likely, e.g. 15043+1 or 15043-inf; may be repeated (default none)",
        many=True,
        aliases=("-l",),
    ),
    Flag("ignore-eos", "ignore_eos", switch, "", "never end by itself (default off)"),
)
BY_NAME = {flag.name: flag for flag in FLAGS}


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds all of them to a command."""
    group = parser.add_argument_group("choice of tokens")
    for flag in FLAGS:
        names = (f"--{flag.name}", *flag.aliases)
        described: dict[str, Any] = {"dest": flag.field, "help": flag.help.replace("%", "%%"), "default": None}
        if flag.parse is switch:
            group.add_argument(*names, action="store_true", **described)
        elif flag.many:
            kind = _or_none(flag.parse)
            group.add_argument(*names, action="append", type=kind, metavar=flag.metavar, **described)
        else:
            group.add_argument(*names, type=flag.parse, metavar=flag.metavar, **described)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `SamplingOptions` that the command line names."""
    values = {flag: getattr(args, flag.field) for flag in FLAGS}
    return {flag.field: _collected(flag, value) for flag, value in values.items() if value is not None}


def parse(name: str, text: str) -> tuple[str, Any]:
    """The field and the value that ``/set NAME TEXT`` means.

    Raises:
        KeyError: there is no such name.
        ValueError: the text is not a value.
    """
    flag = BY_NAME[name]
    try:
        if flag.many:
            return flag.field, _collected(flag, [_or_none(flag.parse)(word) for word in shlex.split(text)])
        return flag.field, flag.parse(text)
    except ValueError:
        raise ValueError(f"{text} is not a value for {name}") from None


def shown(flag: Flag, options: SamplingOptions) -> str:
    """The name and the value, as `parse` reads them."""
    return f"{flag.name} {_spelled(getattr(options, flag.field))}"


def _spelled(value: Any) -> str:
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return " ".join(f"{token}{bias:+g}" for token, bias in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        names = [part if isinstance(part, str) else getattr(part, "__name__", "own") for part in value]
        if all(name.isidentifier() for name in names):
            return ";".join(names)
        return " ".join(shlex.quote(name.replace("\n", "\\n").replace("\t", "\\t")) for name in names)
    return str(value)


def _or_none(parse_one: Callable[[str], Any]) -> Callable[[str], Any]:
    """Reads ``none`` as None."""

    def value(text: str) -> Any:
        return None if text == "none" else parse_one(text)

    value.__name__ = parse_one.__name__
    return value


def _collected(flag: Flag, value: Any) -> Any:
    """Several values as the field holds them; None among them stands for nothing."""
    if not flag.many:
        return value
    items = [item for item in value if item is not None]
    return dict(items) if flag.parse is token_bias else tuple(items)
