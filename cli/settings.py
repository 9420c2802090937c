"""`Settings`: what `/set` shows and changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from iqrun.cli import sampling_flags

if TYPE_CHECKING:
    from iqrun import SamplingOptions

_LINE = 76


@dataclass
class Settings:
    """How answers are generated.

    Attributes:
        sampling: how tokens are chosen.
        max_tokens: most tokens per answer; None has no limit.
    """

    sampling: SamplingOptions
    max_tokens: int | None = None

    def options(self) -> dict[str, Any]:
        """As `Chat.send` takes them."""
        return {"max_tokens": self.max_tokens, **self.sampling.keywords()}

    @staticmethod
    def names() -> list[str]:
        """What `/set` knows."""
        return [*sampling_flags.BY_NAME, "n"]

    def shown(self, name: str | None = None) -> list[str]:
        """Names and values as `/set` takes them, in lines; of one name, or of all.

        Raises:
            ValueError: there is no such name.
        """
        if name not in (None, "n", *sampling_flags.BY_NAME):
            raise sampling_flags.unknown(str(name))
        chosen = [flag for flag in sampling_flags.FLAGS if name in (None, flag.name)]
        parts = [sampling_flags.shown(flag, self.sampling) for flag in chosen]
        if name in (None, "n"):
            parts.append(f"n {'none' if self.max_tokens is None else self.max_tokens}")
        return _lines(parts)

    def set(self, name: str, text: str) -> None:
        """Changes one value.

        Raises:
            ValueError: there is no such name, or the value is not in its range.
        """
        if name == "n":
            self.max_tokens = _limit(text)
        else:
            field, value = sampling_flags.parse(name, text)
            self.sampling = replace(self.sampling, **{field: value})


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
