"""Word wrap, judged by a small terminal: what is on its screen after the pieces came."""

from __future__ import annotations

import random
import re

import pytest
from wcwidth import wcswidth

from iqrun.cli.wrap import WordWrap


class Terminal:
    """As much of a terminal as the wrapper uses: letters, new lines, cursor left, erase to the end of the line."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [""]

    def send(self, text: str) -> None:
        for part in re.findall(r"\x1b\[\d*[DK]|\n|[^\x1b\n]+", text):
            if part.endswith("D") and part.startswith("\x1b"):
                self._left(int(part[2:-1]))
            elif part == "\n":
                self.lines.append("")
            elif not part.startswith("\x1b"):
                self.lines[-1] += part
                assert wcswidth(self.lines[-1]) < self.columns, "the cursor came to the last column"

    def _left(self, n: int) -> None:
        """Moves left; as an erase always follows, what is passed over goes now."""
        width = wcswidth(self.lines[-1]) - n
        while wcswidth(self.lines[-1]) > width:
            self.lines[-1] = self.lines[-1][:-1]
        assert wcswidth(self.lines[-1]) == width


def shown(text: str, columns: int, sizes: list[int] | None = None) -> list[str]:
    terminal, wrap = Terminal(columns), WordWrap(lambda: columns)
    while text:
        n = sizes.pop() if sizes else 1
        terminal.send(wrap.feed(text[:n]))
        text = text[n:]
    return terminal.lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("the cat sat on the mat", ["the cat", "sat on", "the mat"]),
        ("one two\nthree\n\nfour", ["one two", "three", "", "four"]),
        ("exactly n", ["exactly n"]),
        ("exactly no", ["exactly ", "no"]),
        ("abcdefghijklmnop", ["abcdefghi", "jklmnop"]),
        ("hi abcdefghijklmnop x", ["hi ", "abcdefghi", "jklmnop x"]),
        ("word     \nnext", ["word     ", "next"]),
        ("eightish      x", ["eightish ", "x"]),
        ("a\tb", ["a       b"]),
        ("a\tbc", ["a       ", "bc"]),
        ("你好世界你好", ["你好世界", "你好"]),
        ("你好世界。你", ["你好世", "界。你"]),
        ("ab你好世界", ["ab你好世", "界"]),
        ("naïve café là", ["naïve ", "café là"]),
        ("xxxxxxx 👍🏽", ["xxxxxxx ", "👍🏽"]),
        ("xxxxxx 👩‍👩‍👧👩‍👩‍👧", ["xxxxxx 👩‍👩‍👧", "👩‍👩‍👧"]),
    ],
)
def test_lines(text: str, lines: list[str]) -> None:
    """In ten columns, letter by letter and all at once: nine are used."""
    assert [line.rstrip() for line in shown(text, 10)] == [line.rstrip() for line in lines]
    assert [line.rstrip() for line in shown(text, 10, [len(text)])] == [line.rstrip() for line in lines]


def test_every_letter_is_shown_at_once() -> None:
    """Nothing is held back for the end of a word."""
    wrap = WordWrap(lambda: 80)
    assert [wrap.feed(piece) for piece in ("Hel", "lo", ", ", "w")] == ["Hel", "lo", ", ", "w"]


def test_styles_change_only_where_they_do() -> None:
    """A sequence for each change; none inside a run; a new line and the end are plain."""
    wrap = WordWrap(lambda: 80)
    sent = wrap.feed("ab", "1") + wrap.feed("c", "1") + wrap.feed("d") + wrap.feed("e", "3") + wrap.feed("\nf", "3")
    assert sent == "\x1b[0;1mabc\x1b[0md\x1b[0;3me\x1b[0m\n\x1b[0;3mf"
    assert wrap.end() == "\x1b[0m\n"


def test_a_word_taken_back_keeps_its_styles() -> None:
    """Each letter has its own on the next line."""
    wrap = WordWrap(lambda: 10)
    assert wrap.feed("one two ") + wrap.feed("a", "1") == "one two \x1b[0;1ma"
    assert wrap.feed("b") == "\x1b[1D\x1b[K\x1b[0m\n\x1b[0;1ma\x1b[0mb"


def test_lines_that_go_on_hang() -> None:
    """Under the text of a list item; not after the text's own new line, and not where it would leave no room."""
    wrap = WordWrap(lambda: 10)
    wrap.hang = "  "
    assert wrap.feed("- one twoo three") == "- one two\x1b[3D\x1b[K\n  twoo th\x1b[2D\x1b[K\n  three"
    assert wrap.feed("\none two three") == "\none two t\x1b[1D\x1b[K\nthree"
    wrap.hang = "      "
    assert wrap.feed("\n") + wrap.feed("a" * 12) == "\n" + "a" * 9 + "\n" + "a" * 3


def test_verbatim_text_breaks_anywhere() -> None:
    """Blanks are kept; signs of several code points stay together."""
    wrap = WordWrap(lambda: 6)
    wrap.verbatim = True
    assert wrap.feed("a  b c  d") == "a  b \nc  d"
    assert wrap.feed("\nabc👩‍👩‍👧e\u0301f") == "\nabc👩‍👩‍👧\ne\u0301f"


def test_a_resized_terminal_is_noticed() -> None:
    """The width is asked for with each piece."""
    width = 20
    wrap = WordWrap(lambda: width)
    assert wrap.feed("one two ") == "one two "
    width = 10
    assert wrap.feed("th") == "t\x1b[1D\x1b[K\nth"


def test_any_pieces_give_the_same_lines() -> None:
    """However the stream is cut: no letter is lost, words stay whole, and the screen is the same."""
    random_ = random.Random(7)
    for _ in range(60):
        sizes = [random_.randint(1, 7) for _ in range(30)]
        words = ["".join(random_.choices("abcé你👍", weights=[5, 5, 5, 3, 2, 1], k=size)) for size in sizes]
        text, columns = " ".join(words), random_.randint(17, 40)
        lines = shown(text, columns)
        assert lines == shown(text, columns, [random_.randint(1, 9) for _ in range(99)])
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        narrow = [word for word in words if not set(word) & set("你👍")]
        assert set(narrow) <= set(re.findall(r"[^ ]+", " ".join(lines)))
