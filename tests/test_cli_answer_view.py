"""How answers appear: as text, and on a terminal's screen."""

from __future__ import annotations

import random
from typing import Any

import pyte
import pytest

from iqrun.cli.answer_view import AnswerView
from iqrun.cli.markdown import Markdown
from iqrun.cli.status_bar import StatusBar
from iqrun.cli.wrap import WordWrap

ANSWER = """\
<think>
The user wants a **list**.
Fine.
</think>

# Animals

Here are *some*:

- the fox, which runs and runs and runs
- `cat`

```
x = [1,   2]
```
Bye 中文字中文字中文字中文字中文字.
"""


def show(view: AnswerView, text: str, sizes: list[int] | None = None) -> None:
    with view:
        for size in sizes or []:
            view.write(text[:size])
            text = text[size:]
        if text:
            view.write(text)


class Desk:
    """A view on a terminal."""

    def __init__(self, columns: int, *, bar: bool = False, markdown: bool = True) -> None:
        self.screen = pyte.Screen(columns, 40)
        self.screen.set_mode(pyte.modes.LNM)
        send = pyte.Stream(self.screen).feed
        self.view = AnswerView(
            send,
            wrap=WordWrap(lambda: columns),
            markdown=(lambda base: Markdown(base=base)) if markdown else None,
            bar=StatusBar(send, lambda: columns) if bar else None,
            terminal=True,
        )
        self.view.status = lambda: ["status"]

    def lines(self) -> list[str]:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip().split("\n")

    def cell(self, word: str) -> Any:
        for y, line in enumerate(self.screen.display):
            if word in line:
                return self.screen.buffer[y][line.index(word)]
        raise AssertionError(word)


@pytest.mark.parametrize("bar", [False, True])
def test_on_a_screen(bar: bool) -> None:
    """Wrapped and styled, whatever the pieces; the bar leaves no trace."""
    random_ = random.Random(9)
    for sizes in (
        [],
        [1] * 400,
        [random_.randint(1, 9) for _ in range(99)],
        [random_.randint(1, 9) for _ in range(99)],
    ):
        desk = Desk(24, bar=bar)
        show(desk.view, ANSWER, sizes)
        assert desk.lines() == [
            "The user wants a list.",
            "Fine.",
            "",
            "Animals",
            "",
            "Here are some:",
            "",
            "• the fox, which runs",
            "  and runs and runs",
            "• cat",
            "",
            "```",
            "x = [1,   2]",
            "```",
            "Bye 中文字中文字中文字",
            "中文字中文字.",
        ]
        assert desk.cell("Animals").bold and desk.cell("some").italics and desk.cell("cat").fg == "magenta"
        assert desk.cell("list").bold and not desk.cell("Bye").bold


def test_dim_thinking_is_faint() -> None:
    """The control sequence says so (the screen of these tests does not know it)."""
    sent: list[str] = []
    view = AnswerView(sent.append, wrap=WordWrap(lambda: 80), markdown=lambda base: Markdown(base=base))
    show(view, "<think>Hm.</think>Yes.")
    assert "".join(sent) == "\x1b[0;2mHm.\x1b[0m\n\nYes.\n"


@pytest.mark.parametrize(
    ("think", "text", "expected"),
    [
        ("show", "<think>Hm.</think>\nYes.", "<think>Hm.</think>\nYes.\n"),
        ("dim", "<think>Hm.</think>\nYes.", "<think>Hm.</think>\nYes.\n"),
        ("hide", "<think>Hm.</think>\nYes.", "Yes.\n"),
        ("hide", "<think>Hm.", "\n"),
        ("hide", "<thi", "<thi\n"),
        ("dim", "**a**\x1b[2J", "**a**\x1b[2J\n"),
        ("dim", "", "\n"),
    ],
)
def test_without_a_terminal(think: Any, text: str, expected: str) -> None:
    """The text as it was written; only hidden thinking is left out."""
    for sizes in ([], [1] * 50):
        sent: list[str] = []
        view = AnswerView(sent.append)
        view.think = think
        show(view, text, sizes)
        assert "".join(sent) == expected


def test_a_model_cannot_steer_the_terminal() -> None:
    """Control characters are left out, also in code."""
    desk = Desk(40)
    show(desk.view, "a\x1b[2J\x07 `b\x1b]0;x\x07`\n```\n\x9b31m\n```")
    assert desk.lines() == ["a[2J b]0;x", "```", "31m", "```"]


def test_the_bar_while_reading_and_thinking() -> None:
    """It tells how far reading is and what is left; hidden thinking is told there, too."""
    desk = Desk(60, bar=True)
    desk.view.think = "hide"
    with desk.view:
        desk.view.progress(0, 512)
        assert desk.lines() == ["", " reading 512 tokens  status"]
        desk.view._start -= 10
        desk.view.bar._next = 0.0  # type: ignore[union-attr]
        desk.view.progress(128, 512)
        assert desk.lines() == ["", " reading 512 tokens  25%  30s left  status"]
        desk.view.bar._next = 0.0  # type: ignore[union-attr]
        desk.view.write("<think>Hm")
        assert desk.lines() == ["", " thinking  status"]
        desk.view.write("</think>Yes")
    assert desk.lines() == ["Yes"]


def test_an_interrupted_answer_ends_its_line_and_style() -> None:
    """Whatever stood open; without any text there is no empty line."""
    desk = Desk(40, bar=True)
    for text in ("some **bold `", ""):
        with pytest.raises(KeyboardInterrupt), desk.view:
            desk.view.write(text) if text else None
            raise KeyboardInterrupt
    assert desk.lines() == ["some bold `"] and desk.screen.cursor.x == 0
    assert not desk.screen.cursor.attrs.bold


def test_keys_are_silent_meanwhile() -> None:
    """And come back, also after an error."""
    told: list[str] = []

    class Keys:
        def __enter__(self) -> None:
            told.append("silent")

        def __exit__(self, *_: object) -> None:
            told.append("back")

    view = AnswerView(lambda _: None, keys=Keys)
    with pytest.raises(ValueError), view:
        raise ValueError
    assert told == ["silent", "back"]
