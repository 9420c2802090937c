"""The bar under the text, judged by a terminal."""

from __future__ import annotations

import random

import pyte
import pytest

from iqrun.cli import status_bar
from iqrun.cli.status_bar import StatusBar, fit
from iqrun.cli.wrap import WordWrap


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets; every look at it is a second later."""
    now = [100.0]

    def tick() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(status_bar, "monotonic", tick)
    return now


class Desk:
    """A terminal of twenty columns and six lines with a bar."""

    def __init__(self) -> None:
        self.screen = pyte.Screen(20, 6)
        self.screen.set_mode(pyte.modes.LNM)
        stream = pyte.Stream(self.screen)
        self.sent = ""

        def send(text: str) -> None:
            self.sent += text
            stream.feed(text)

        self.bar = StatusBar(send, lambda: 20)

    def lines(self) -> list[str]:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip().split("\n")


def test_it_stands_under_the_text_and_goes() -> None:
    """The cursor stays in the text; at the end nothing is left of it."""
    desk = Desk()
    desk.bar.write("Once")
    desk.bar.draw(["context 1/9"])
    assert desk.lines() == ["Once", " context 1/9"]
    desk.bar.write(" upon\na")
    assert desk.lines() == ["Once upon", "a"]
    desk.bar.draw(["context 2/9"])
    desk.bar.write(" time")
    assert desk.lines() == ["Once upon", "a time", " context 2/9"]
    desk.bar.clear()
    desk.bar.write("\n> ")
    assert desk.lines() == ["Once upon", "a time", ">"]


def test_at_the_bottom_of_the_screen() -> None:
    """It scrolls the text up by a line, never over it."""
    desk = Desk()
    for number in range(9):
        desk.bar.write(f"line {number}\n")
        desk.bar.draw([f"bar {number}"])
    desk.bar.write("end")
    assert desk.lines() == ["line 5", "line 6", "line 7", "line 8", "end", " bar 8"]
    desk.bar.clear()
    assert desk.lines() == ["line 5", "line 6", "line 7", "line 8", "end"]


def test_the_text_is_the_same_as_without_a_bar() -> None:
    """Whatever is written and whenever the bar is drawn, with words taken back, styles and wide letters."""
    random_ = random.Random(2)
    for _ in range(40):
        plain, desk, wrap, same = Desk(), Desk(), WordWrap(lambda: 20), WordWrap(lambda: 20)
        for _ in range(40):
            text = "".join(random_.choices("abc 中👍\n", weights=[5, 5, 5, 4, 1, 1, 1], k=random_.randint(1, 9)))
            style = random_.choice(["", "", "1", "35"])
            plain.bar.write(same.feed(text, style))
            desk.bar.write(wrap.feed(text, style))
            desk.bar.draw([f"bar {random_.random()}"])
        desk.bar.clear()
        cursor = desk.screen.cursor
        assert (cursor.x, cursor.attrs) == (plain.screen.cursor.x, plain.screen.cursor.attrs)
        assert desk.lines()[-4:] == plain.lines()[-4:] or desk.lines() == plain.lines()[-len(desk.lines()) :]


def test_it_is_drawn_seldom(clock: list[float]) -> None:
    """Not without news, and not soon after the last time: the line may be slow."""
    desk = Desk()
    desk.bar.draw(["one"])
    n_sent = len(desk.sent)
    desk.bar.draw(["one"])
    assert len(desk.sent) == n_sent < 60
    clock[0] -= 1.9
    desk.bar.draw(["two"])
    assert len(desk.sent) == n_sent
    desk.bar.draw(["two"])
    assert len(desk.sent) > n_sent


@pytest.mark.parametrize(
    ("parts", "columns", "line"),
    [
        (["a", "b", "c"], 20, " a  b  c "),
        (["aaaaa", "bbbbb", "c"], 12, " aaaaa "),
        (["aaaaa", "bbbbb", "c"], 14, " aaaaa  bbbbb "),
        (["aaaaaaaaaa"], 5, " aaaa"),
        (["中文中文"], 6, " 中文"),
        (["context 12/99", "3.4 tokens/s", "name"], 35, " context 12/99  3.4 tokens/s  name "),
        (["context 12/99", "3.4 tokens/s", "name"], 24, " 12/99  3.4 t/s  name "),
        (["context 12/99", "3.4 tokens/s", "name"], 20, " 12/99  3.4 t/s "),
        (["a\x1b[2Jb"], 20, " a\\x1b[2Jb "),
        ([], 20, ""),
    ],
)
def test_fit(parts: list[str], columns: int, line: str) -> None:
    """What matters least is left out; names cannot steer the terminal."""
    assert fit(parts, columns) == line
