"""Word wrap for styled text that comes in pieces.

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

    Attributes:
        hang: what a line begins with that goes on an earlier one, until the text begins a new line.
        verbatim: break anywhere, and keep every blank: for code.
    """

    def __init__(self, columns: Callable[[], int]) -> None:
        """Takes a function that tells the width of the terminal, which may change."""
        from wcwidth import wcswidth, wcwidth

        self.hang, self.verbatim = "", False
        self._columns = columns
        self._width_of, self._letter_width = wcswidth, wcwidth
        self._column = 0  # where the unfinished word begins
        self._word = ""
        self._styles: list[str] = []  # of the word's letters
        self._pen = ""  # the style that the terminal writes in
        self._limit = 1

    def feed(self, text: str, style: str = "") -> str:
        """What to send to the terminal for this piece.

        Args:
            text: letters, blanks, tabs and new lines.
            style: parameters of the control sequence SGR, such as ``1;35``; empty for none.
        """
        self._limit = max(self._columns() - 1, 1)
        return "".join([self._letter(letter, style) for letter in text])

    def end(self) -> str:
        """Ends the style and the line."""
        return self._styled("") + self._new_line()

    def _letter(self, letter: str, style: str) -> str:
        if letter == "\n":
            self.hang = ""
            return self._styled("") + self._new_line()
        if letter == "\t" or (letter == " " and not self.verbatim):
            return self._styled(style) + self._space(letter)
        if self._may_break_before(letter):
            self._end_word()
        return self._extend(letter, style)

    def _new_line(self) -> str:
        self._column, self._word, self._styles = 0, "", []
        return "\n"

    def _space(self, letter: str) -> str:
        """Blanks up to the end of the line; those beyond it are not needed."""
        self._end_word()
        n_wanted = 1 if letter == " " else _TAB - self._column % _TAB
        n_shown = max(min(n_wanted, self._limit - self._column), 0)
        self._column += n_shown
        return " " * n_shown

    def _extend(self, letter: str, style: str) -> str:
        """One more letter of the word, and a new line if that is one too many."""
        before, self._word = self._word, self._word + letter
        self._styles.append(style)
        width = self._width(self._word)
        if self._column + width <= self._limit:
            return self._styled(style) + letter
        hang = self.hang if 2 * self._width(self.hang) < self._limit else ""
        start = self._width(hang)
        if self._column > start and start + width <= self._limit:
            back = f"\x1b[{self._width(before)}D\x1b[K" if before else ""
            self._column = start
            return back + self._styled("") + "\n" + hang + self._again()
        if not before and self._column <= start:  # wider than the terminal
            return self._styled(style) + letter
        self._column, self._word, self._styles = start, letter, [style]  # longer than any line
        return self._styled("") + "\n" + hang + self._styled(style) + letter

    def _again(self) -> str:
        """The word once more."""
        return "".join([self._styled(style) + letter for letter, style in zip(self._word, self._styles, strict=True)])

    def _styled(self, style: str) -> str:
        """The control sequence that makes the terminal write in a style, if it does not yet."""
        if style == self._pen:
            return ""
        self._pen = style
        return f"\x1b[0;{style}m" if style else "\x1b[0m"

    def _end_word(self) -> None:
        self._column += self._width(self._word)
        self._word, self._styles = "", []

    def _may_break_before(self, letter: str) -> bool:
        if not self.verbatim and letter.isascii() and self._word.isascii():
            return False
        if not self._word or self._word.endswith(_JOINER) or self._letter_width(letter) == 0:
            return False
        if self._width(self._word + letter) < self._width(self._word) + self._letter_width(letter):
            return False  # they are one sign
        wide = self._letter_width(letter) == 2 or self._letter_width(self._word[0]) == 2
        return self.verbatim or (wide and letter not in _CLOSING)

    def _width(self, text: str) -> int:
        return len(text) if text.isascii() else max(self._width_of(text), 0)
