"""Finds the texts of special tokens in a text, from left to right, the longest first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

PLAIN_MARK = "\ufdd0"  # a code point that Unicode sets aside for uses like this one: never part of a text
MAX_CHARS = 256  # longer "special tokens" exist only in hostile files: they would make every search slow


class SpecialSplitter:
    """Cuts text at special tokens."""

    def __init__(self, ids: Mapping[str, int], *, strip_after: bool = False) -> None:
        """Prepares the search.

        Args:
            ids: the special texts and their ids; empty texts and those above `MAX_CHARS` are never found.
            strip_after: white space that follows a special token belongs to it and is dropped.
        """
        self._ids = {text: i for text, i in ids.items() if 0 < len(text) <= MAX_CHARS}
        self._strip_after = strip_after
        lengths: dict[str, set[int]] = {}
        for text in self._ids:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        letters = "".join(re.escape(first) for first in lengths)
        self._candidate = re.compile(f"[{letters}]" if letters else "(?!)")

    def split(self, text: str) -> Iterator[str | int]:
        """The pieces of a text: strings (never empty) between special tokens, and the ids of those."""
        start = position = 0
        while (candidate := self._candidate.search(text, position)) is not None:
            position = candidate.start()
            found = self._longest_at(text, position)
            if found is None:
                position += 1
                continue
            if start < position:
                yield text[start:position]
            yield self._ids[found]
            position += len(found)
            if self._strip_after:
                position = _skip_space(text, position)
            start = position
        if start < len(text):
            yield text[start:]

    def break_up(self, text: str) -> str:
        """The text with a `PLAIN_MARK` inside each special text, also where they overlap: none is found in it."""
        parts, start = [], 0
        for candidate in self._candidate.finditer(text):
            position = candidate.end()
            if self._longest_at(text, position - 1) is not None:
                parts += [text[start:position], PLAIN_MARK]
                start = position
        return "".join(parts) + text[start:]

    def _longest_at(self, text: str, position: int) -> str | None:
        for length in self._lengths[text[position]]:
            piece = text[position : position + length]
            if piece in self._ids:
                return piece
        return None


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position
