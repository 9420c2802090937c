"""`Settings`: what `/set` shows and changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from iqrun.chat.window import POLICIES, ContextPolicy
from iqrun.cli import sampling_flags
from iqrun.cli.answer_view import THINK, Think

if TYPE_CHECKING:
    from iqrun import Grammar, SamplingOptions

_LINE = 76
_SWITCH = ("on", "off")


class Choice(NamedTuple):
    """An option that is one of a few words; its field of `Settings` has the same name, with ``_``."""

    values: tuple[str, ...]
    help: str


CHOICES = {
    "think": Choice(THINK, "thinking sections: as they are, faint, or hidden"),
    "context-full": Choice(POLICIES, "leave out the oldest exchanges, the beginning of the oldest, or stop"),
    "lookup": Choice(_SWITCH, "guess tokens from the conversation: same text, sooner if it repeats"),
    "keep-state": Choice(_SWITCH, "/save also keeps what the model has read"),
}


@dataclass
class Settings:
    """How answers are generated.

    Attributes:
        sampling: how tokens are chosen.
        max_tokens: most tokens per answer; None has no limit.
        think: how thinking is shown; see `AnswerView`.
        context_full: what happens when the context is full; see `Chat`.
        lookup: ``on``: guess tokens from the conversation; see `Chat.send`.
        keep_state: ``on``: what the model has read is saved with a conversation.
        response_format: what answers must look like; given on the command line only.
    """

    sampling: SamplingOptions
    max_tokens: int | None = None
    think: Think = "dim"
    context_full: ContextPolicy = "drop"
    lookup: str = "off"
    keep_state: str = "off"
    response_format: Grammar | None = None

    def options(self) -> dict[str, Any]:
        """As `Chat.send` takes them."""
        how = {"max_tokens": self.max_tokens, "lookup": self.lookup == "on", "response_format": self.response_format}
        return {**how, **self.sampling.keywords()}

    @staticmethod
    def names() -> list[str]:
        """What `/set` knows."""
        return [*sampling_flags.BY_NAME, "n", *CHOICES]

    @staticmethod
    def values(name: str) -> tuple[str, ...]:
        """What an option may be, if that is one of a few words."""
        return CHOICES[name].values if name in CHOICES else ()

    @staticmethod
    def described() -> list[str]:
        """Each option with its values and meaning, for people."""
        lines = [(f"{flag.name} {flag.metavar}", flag.help) for flag in sampling_flags.FLAGS]
        lines.append(("n N", "most tokens per answer, or none"))
        lines += [(f"{name} {'|'.join(choice.values)}", choice.help) for name, choice in CHOICES.items()]
        return [f"  {name:<28} {text}" for name, text in lines]

    def shown(self, name: str | None = None) -> list[str]:
        """Names and values as `/set` takes them, in lines; of one name, or of all.

        Raises:
            ValueError: there is no such name.
        """
        if name is not None and name not in self.names():
            raise _unknown(name)
        chosen = [flag for flag in sampling_flags.FLAGS if name in (None, flag.name)]
        parts = [sampling_flags.shown(flag, self.sampling) for flag in chosen]
        if name in (None, "n"):
            parts.append(f"n {'none' if self.max_tokens is None else self.max_tokens}")
        parts += [f"{choice} {getattr(self, _field(choice))}" for choice in CHOICES if name in (None, choice)]
        return _lines(parts)

    def set(self, name: str, text: str) -> None:
        """Changes one value.

        Raises:
            ValueError: there is no such name, or the value is not in its range.
        """
        if name == "n":
            self.max_tokens = _limit(text)
        elif name in CHOICES:
            if text not in self.values(name):
                raise ValueError(f"{name} must be one of {', '.join(self.values(name))}")
            setattr(self, _field(name), text)
        elif name not in sampling_flags.BY_NAME:
            raise _unknown(name)
        else:
            field, value = sampling_flags.parse(name, text)
            self.sampling = replace(self.sampling, **{field: value})


def _field(choice: str) -> str:
    return choice.replace("-", "_")


def _unknown(name: str) -> ValueError:
    near = get_close_matches(name, Settings.names(), n=1)
    hint = f"did you mean {near[0]}?" if near else "/set lists them"
    return ValueError(f"there is no option {name}; {hint}")


def _limit(text: str) -> int | None:
    try:
        limit = None if text == "none" else int(text)
    except ValueError:
        raise ValueError(f"{text} is not a value for n") from None
    if limit is not None and limit < 1:
        raise ValueError("n must be at least 1, or none")
    return limit


def _lines(parts: list[str]) -> list[str]:
    """As many parts to a line as fit."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + 2 + len(part) > _LINE:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + part
    return lines
