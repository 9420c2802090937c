"""A status line below text that is still being written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from iqrun.cli import ui

# Escape sequences: index (down a line, scrolling if need be, in the same column), up, save and restore the cursor.
_MAKE_ROOM_BELOW = "\x1bD\x1b[A"
_SAVE, _RESTORE, _BELOW = "\x1b7", "\x1b8", "\r\x1b[B"
_CLEAR_REST = "\x1b[J"  # to the end of the screen: a bar in a window that became narrower has two lines
_REVERSE, _NORMAL = "\x1b[7m", "\x1b[0m"
_SHORTER = (("context ", ""), (" tokens", " t"))
_SECONDS = 0.5  # between two drawings: a bar costs some eighty bytes, and the line may be slow


class StatusBar:
    """Keeps a line under the cursor while text goes through `write`.

    It moves relative to the text only, so it works wherever the text stands and leaves the scroll-back alone. Whoever
    writes must break lines before the terminal does.
    """

    def __init__(self, write: Callable[[str], object], columns: Callable[[], int]) -> None:
        """Takes the way to the terminal, and a function that tells its width."""
        self._write, self._columns = write, columns
        self._visible = False
        self._last = ""
        self._next = 0.0

    def write(self, text: str) -> None:
        """Writes text above the bar; where it comes to the bar's line, the bar goes until it is drawn again."""
        if self._visible and "\n" in text:
            self._visible = False
            text = text.replace("\n", "\n" + _CLEAR_REST, 1)
        self._write(text)

    def draw(self, parts: Sequence[str]) -> None:
        """Shows the parts that fit, if they are news and the last drawing is some time ago."""
        now = monotonic()
        if now < self._next or not parts:
            return
        line = fit(parts, self._columns() - 1)
        if self._visible and line == self._last:
            return
        self._visible, self._last, self._next = True, line, now + _SECONDS
        self._write(f"{_MAKE_ROOM_BELOW}{_SAVE}{_BELOW}{_REVERSE}{line}{_NORMAL}{_CLEAR_REST}{_RESTORE}")

    def clear(self) -> None:
        """Takes the bar away."""
        self._next = 0.0
        if self._visible:
            self._visible = False
            self._write(_CLEAR_REST)


def fit(parts: Sequence[str], columns: int) -> str:
    """The parts in one line: shortened if they are too long together, then as many of the first ones as fit."""
    shown = [ui.printable(part) for part in parts]
    if _width(_line(shown)) > columns:
        shown = [_shortened(part) for part in shown]
    while len(shown) > 1 and _width(_line(shown)) > columns:
        shown.pop()
    line = _line(shown)
    while _width(line) > columns:
        line = line[:-1]
    return line


def _line(parts: Sequence[str]) -> str:
    return f" {'  '.join(parts)} " if parts else ""


def _shortened(part: str) -> str:
    for long, short in _SHORTER:
        part = part.replace(long, short)
    return part


def _width(text: str) -> int:
    from wcwidth import wcswidth

    return len(text) if text.isascii() else max(wcswidth(text), 0)
