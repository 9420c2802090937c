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
