"""Word wrap for text that comes in pieces.

Every letter is shown at once; a word that turns out too long for its line is taken back and begun anew on the next one.
"""

from __future__ import annotations

from collections.abc import Callable

_TAB = 8
_JOINER = "\u200d"  # glues emoji to one
_CLOSING = frozenset("、。，．！？：；」』）】〉》〕］｝ー々…”’")  # never begins a line


class WordWrap:
    """Breaks a stream of text at words.

    Text of scripts without spaces (each letter two columns wide) may break between any two letters, but not before
    closing punctuation. A word longer than a line is broken where the line ends. The last column stays free: a cursor
    behind it would be on either line, depending on the terminal.
    """

    def __init__(self, columns: Callable[[], int]) -> None:
        """Takes a function that tells the width of the terminal, which may change."""
        from wcwidth import wcswidth, wcwidth

        self._columns = columns
        self._width_of, self._letter_width = wcswidth, wcwidth
        self._column = 0  # where the unfinished word begins
        self._word = ""
        self._limit = 1

    def feed(self, text: str) -> str:
        """What to send to the terminal for this piece."""
        self._limit = max(self._columns() - 1, 1)
        return "".join([self._letter(letter) for letter in text])

    def _letter(self, letter: str) -> str:
        if letter == "\n":
            self._column, self._word = 0, ""
            return letter
        if letter in " \t":
            return self._space(letter)
        if self._may_break_before(letter):
            self._end_word()
        return self._extend(letter)

    def _space(self, letter: str) -> str:
        """Blanks up to the end of the line; those beyond it are not needed."""
        self._end_word()
        n_wanted = 1 if letter == " " else _TAB - self._column % _TAB
        n_shown = max(min(n_wanted, self._limit - self._column), 0)
        self._column += n_shown
        return " " * n_shown

    def _extend(self, letter: str) -> str:
        """One more letter of the word, and a new line if that is one too many."""
        before, self._word = self._word, self._word + letter
        width = self._width(self._word)
        if self._column + width <= self._limit:
            return letter
        if self._column and width <= self._limit:
            self._column = 0
            return (f"\x1b[{self._width(before)}D\x1b[K" if before else "") + "\n" + self._word
        self._column, self._word = 0, letter  # longer than any line
        return "\n" + letter if before else letter

    def _end_word(self) -> None:
        self._column += self._width(self._word)
        self._word = ""

    def _may_break_before(self, letter: str) -> bool:
        if letter.isascii() and self._word.isascii():
            return False
        if not self._word or self._word.endswith(_JOINER) or letter in _CLOSING or self._letter_width(letter) == 0:
            return False
        joined = self._width(self._word + letter) < self._width(self._word) + self._letter_width(letter)
        return not joined and (self._letter_width(letter) == 2 or self._letter_width(self._word[0]) == 2)

    def _width(self, text: str) -> int:
        return len(text) if text.isascii() else max(self._width_of(text), 0)
