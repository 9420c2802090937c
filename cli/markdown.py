"""Light Markdown for a stream: headings, lists, quotes, rules, fenced and inline code, bold and italic.

The text flows: what is certain is given out at once, only letters that may still become a marker are held back. So
there is no drawing anew, which a terminal behind a slow line would show, and nothing ever has to be taken back.
Markers disappear, except the fences of code blocks; tables, links, HTML and formulas stay as they were written. A
construct ends at the latest with its line, so a lonely ``*`` styles no more than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

BOLD, ITALIC, CODE, FAINT = "1", "3", "35", "2"

# What a line may begin with. The second expression matches what may still become one of these.
_BLOCK = re.compile(
    r"(?P<indent> *)(?:(?P<fence>`{3,})(?=[^`\n]*\n)|(?P<tildes>~{3,})(?=[^~\n]*\n)|(?P<heading>#{1,6}) +(?=[^ ])"
    r"|(?P<bullet>[-*+]) +(?=[^ ])|(?P<number>\d{1,9}[.)]) +(?=[^ ])|(?P<quote>>)(?: |(?=[^ ]))"
    r"|(?P<rule>-{3,}|\*{3,}|_{3,}) *(?=\n)|(?P<table>\|))"
)
_UNDECIDED = re.compile(r" *(?:`{3,}[^`\n]*|`*|~{3,}[^~\n]*|~*|#{1,6} *|[-*+] *|\d{1,9}[.)]? *|>|(?:-+|\*+|_+) *)")
_MARKER = re.compile(r"[*_`\\\n]")
_ESCAPED = "*_`\\"
_RULE_COLUMNS = 24


class Span(NamedTuple):
    """A piece of text for the screen.

    Attributes:
        text: letters and new lines.
        style: parameters of the control sequence SGR; empty for none.
        hang: what the line begins with when it goes on below, from here on; None: as before.
        verbatim: a part of a code block, with its blanks.
    """

    text: str
    style: str = ""
    hang: str | None = None
    verbatim: bool = False


class Markdown:
    """Turns a text that comes in pieces into spans."""

    def __init__(self, *, base: str = "", bullet: str = "•", bar: str = "│", line: str = "─") -> None:
        """Starts a text.

        Args:
            base: a style that everything has.
            bullet: stands before the points of a list.
            bar: stands before quoted lines.
            line: is repeated as a rule.
        """
        self._base = base
        self._bullet, self._bar, self._line = bullet, bar, line
        self._held = ""
        self._fence = ""  # what ends the open code block
        self._fence_line = False  # in the line that opens or closes one
        self._table = False  # in a line of a table
        self._hang = ""
        self._begin_line()

    def feed(self, text: str, *, final: bool = False) -> Iterator[Span]:
        """The spans that became certain; with `final`, all that is left."""
        self._held += text
        while self._held:
            before = len(self._held)
            yield from self._line_begin(final) if self._at_begin else self._line_rest(final)
            if len(self._held) == before and self._waiting:
                return

    def _begin_line(self) -> None:
        self._at_begin, self._heading, self._bold, self._italic = True, False, False, ""
        self._code = 0  # backticks that opened inline code
        self._before = " "  # the letter before the next one
        self._hang, self._waiting, self._fence_line, self._table = "", False, False, False

    def _span(self, text: str, *styles: str, hang: str | None = None, verbatim: bool = False) -> Span:
        return Span(text, ";".join(style for style in (self._base, *styles) if style), hang, verbatim)

    def _take(self, n_chars: int) -> str:
        taken, self._held = self._held[:n_chars], self._held[n_chars:]
        return taken

    # ---- the beginning of a line ----

    def _line_begin(self, final: bool) -> Iterator[Span]:
        self._waiting = False
        if self._fence:
            self._code_line(final)
            return
        found = _BLOCK.match(self._held)
        if found is None and not final and _UNDECIDED.fullmatch(self._held):
            self._waiting = True
            return
        self._at_begin = False
        if found is not None:
            self._take(found.end())
            yield self._block(found)

    def _block(self, found: re.Match[str]) -> Span:
        indent, kind = found["indent"], found.lastgroup or ""
        if kind in ("fence", "tildes"):
            self._fence, self._fence_line = found[kind], True
            return self._span(found[0], FAINT)
        if kind == "rule":
            return self._span(self._line * _RULE_COLUMNS, FAINT)
        if kind == "heading":
            self._heading = True
            return self._span("")
        if kind == "table":
            self._table = True
            return self._span(found[0])
        if kind == "quote":
            self._at_begin = True  # lists and headings may stand in it
            mark = f"{indent}{self._bar} "
        else:
            mark = f"{indent}{self._bullet if kind == 'bullet' else found['number']} "
        self._hang += mark if kind == "quote" else " " * len(mark)
        return self._span(mark, FAINT if kind == "quote" else "", hang=self._hang)

    def _code_line(self, final: bool) -> None:
        """The beginning of a line in a code block: is it the fence that ends it?"""
        line, newline, _ = self._held.partition("\n")
        marks = line.strip()
        may_close = not marks.strip(self._fence[0])
        self._waiting = may_close and not newline and not final
        if self._waiting:
            return
        closes = may_close and len(marks) >= len(self._fence)
        self._at_begin = False
        if closes:
            self._fence, self._fence_line = "", True

    # ---- the rest of a line ----

    def _line_rest(self, final: bool) -> Iterator[Span]:
        if self._fence_line or self._fence or self._table:
            yield from self._raw_rest()
            return
        found = _MARKER.search(self._held)
        plain = self._take(len(self._held) if found is None else found.start())
        if plain:
            self._before = plain[-1]
            yield self._text(plain)
        if found is not None:
            yield from self._marker(found[0], final)

    def _raw_rest(self) -> Iterator[Span]:
        end = self._held.find("\n")
        text = self._take(len(self._held) if end < 0 else end + 1)
        style = FAINT if self._fence_line else "" if self._table else CODE
        if end < 0:
            yield self._span(text, style, verbatim=bool(self._fence))
            return
        yield self._span(text[:-1], style, verbatim=bool(self._fence))
        yield self._span("\n")
        self._begin_line()

    def _text(self, text: str) -> Span:
        if self._code:
            return self._span(text, CODE)
        return self._span(text, BOLD if self._heading or self._bold else "", ITALIC if self._italic else "")

    def _marker(self, letter: str, final: bool) -> Iterator[Span]:
        if letter == "\n":
            self._take(1)
            yield self._span("\n")
            self._begin_line()
            return
        run = len(self._held) - len(self._held.lstrip(letter)) if letter != "\\" else 1
        after = self._held[run : run + 1]
        self._waiting = not after and not final
        if self._waiting:
            return
        if letter == "\\":
            yield from self._backslash(after)
        else:
            marker = self._take(run)
            is_marker = self._backticks(run, after) if letter == "`" else self._emphasis(letter, run, after or " ")
            if not is_marker:
                yield self._text(marker)
            self._before = letter

    def _backslash(self, after: str) -> Iterator[Span]:
        escapes = bool(after) and after in _ESCAPED and after != "\\" and not self._code
        text = self._take(2 if escapes else 1)
        self._before = text[-1]
        yield self._text(text[-1])

    def _backticks(self, run: int, after: str) -> bool:
        """Whether they begin or end inline code."""
        if self._code:
            closes = run == self._code
            self._code = 0 if closes else self._code
            return closes
        if not after or after == "\n":
            return False
        self._code = run
        return True

    def _emphasis(self, letter: str, run: int, after: str) -> bool:
        """Whether they begin or end bold or italic text."""
        if self._code or run > 3 or (letter == "_" and run != 1):
            return False
        begins = not after.isspace() and not (self._before.isascii() and self._before.isalnum())
        ends = not self._before.isspace()
        if run == 1:
            return self._toggle_italic(letter, begins, ends, after)
        if run == 3 and self._bold == bool(self._italic) and (ends if self._bold else begins):
            self._bold = not self._bold
            self._italic = letter if self._bold else ""
            return True
        if run == 2 and (ends if self._bold else begins):
            self._bold = not self._bold
            return True
        return False

    def _toggle_italic(self, letter: str, begins: bool, ends: bool, after: str) -> bool:
        if self._italic:
            found = self._italic == letter and ends and not (letter == "_" and after.isalnum())
            self._italic = "" if found else self._italic
            return found
        if begins and (after.isalnum() or after in "\"'“‘(*_"):
            self._italic = letter
            return True
        return False
