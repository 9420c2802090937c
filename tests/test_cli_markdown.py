"""Markdown in a stream: which letters remain, and in which style."""

from __future__ import annotations

import random
from itertools import groupby

import pytest

from iqrun.cli.markdown import Markdown, Span


def spans(text: str, sizes: list[int], base: str = "") -> list[Span]:
    """What a text that comes in pieces of these sizes gives."""
    markdown, found = Markdown(base=base), []
    for size in sizes:
        found += markdown.feed(text[:size])
        text = text[size:]
    return [*found, *markdown.feed(text), *markdown.feed("", final=True)]


def styled(text: str, sizes: list[int] | None = None, base: str = "") -> list[tuple[str, str]]:
    """Letters and their styles, neighbours of one style joined."""
    found = [(letter, span.style) for span in spans(text, sizes or [], base) for letter in span.text]
    return [("".join(letter for letter, _ in run), style) for style, run in groupby(found, lambda pair: pair[1])]


BOLD, ITALIC, CODE, FAINT, BOTH = "1", "3", "35", "2", "1;3"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", [("plain", "")]),
        ("a *b* c", [("a ", ""), ("b", ITALIC), (" c", "")]),
        ("a _b_ c", [("a ", ""), ("b", ITALIC), (" c", "")]),
        ("**b** c", [("b", BOLD), (" c", "")]),
        ("***b*** c", [("b", BOTH), (" c", "")]),
        ("**b *i* b** c", [("b ", BOLD), ("i", BOTH), (" b", BOLD), (" c", "")]),
        ("**b *i***", [("b ", BOLD), ("i", BOTH)]),
        ("中文**重点**内容", [("中文", ""), ("重点", BOLD), ("内容", "")]),
        ("`a*b` **`c`**", [("a*b", CODE), (" ", ""), ("c", CODE)]),
        ("``a`b`` c", [("a`b", CODE), (" c", "")]),
        ("x ``` y", [("x ", ""), (" y", CODE)]),
        ("# One\ntwo", [("One", BOLD), ("\ntwo", "")]),
        ("### *One* `x`\n", [("One", BOTH), (" ", BOLD), ("x", CODE), ("\n", "")]),
        ("#hash", [("#hash", "")]),
        ("- a\n  * b\n+ c", [("• a\n  • b\n• c", "")]),
        ("1. a\n23) b", [("1. a\n23) b", "")]),
        ("> a *b*", [("│ ", FAINT), ("a ", ""), ("b", ITALIC)]),
        ("> - a", [("│ ", FAINT), ("• a", "")]),
        ("---\n", [("─" * 24, FAINT), ("\n", "")]),
        ("| **a** |\n", [("| **a** |\n", "")]),
        ("```py\n*b*\n\n  d\n```",
         [("```py", FAINT), ("\n", ""), ("*b*", CODE), ("\n\n", ""), ("  d", CODE), ("\n", ""), ("```", FAINT)]),
        ("~~~\n```\n~~~\n", [("~~~", FAINT), ("\n", ""), ("```", CODE), ("\n", ""), ("~~~", FAINT), ("\n", "")]),
        ("  ```\n  a\n  ```\n*b*",
         [("  ```", FAINT), ("\n", ""), ("  a", CODE), ("\n", ""), ("  ```", FAINT), ("\n", ""), ("b", ITALIC)]),
        ("```open\ncode", [("```open", FAINT), ("\n", ""), ("code", CODE)]),
        ("```a``` b", [("a", CODE), (" b", "")]),
        (r"\*a\* \_b\_ \`c\`", [("*a* _b_ `c`", "")]),
    ],
)  # fmt: skip
def test_styles(text: str, expected: list[tuple[str, str]]) -> None:
    """All at once, letter by letter, and in any other pieces."""
    assert styled(text) == expected
    assert styled(text, [1] * len(text)) == expected
    random_ = random.Random(5)
    for _ in range(10):
        assert styled(text, [random_.randint(1, 4) for _ in text]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2 * 3 * 4",
        "2**3 and a*b*c",
        "snake_case_name and __init__",
        "*.py and *, * or **",
        "a \\ b \\n \\\\",
        "x ****y****",
        "ends with *",
        "ends with `",
        "-not a list, 3.14, #1, >>>",
        "https://a.b/c_d_e?f=*",
        "[a link](http://x.y) <b>html</b> $x_1^2$",
    ],
)
def test_text_that_only_looks_like_markers(text: str) -> None:
    """Stays as it is."""
    shown = text.replace(">>>", "│ │ │ ") if text.startswith(">>>") else text
    assert styled(text) == [(shown, "")] == styled(text, [1] * len(text))


def test_a_lonely_marker_styles_no_more_than_its_line() -> None:
    """The next line is plain again."""
    assert styled("a **b\nc `d\ne") == [("a ", ""), ("b", BOLD), ("\nc ", ""), ("d", CODE), ("\ne", "")]


def test_a_base_style_is_everywhere() -> None:
    """As in thinking sections."""
    assert styled("a **b** `c`", base=FAINT) == [("a ", "2"), ("b", "2;1"), (" ", "2"), ("c", "2;35")]


def test_where_lines_go_on() -> None:
    """Under the text of their list item or quote."""
    hangs = [span.hang for span in spans("- a\n10. b\n> c\n> - d\n", []) if span.hang is not None]
    assert hangs == ["  ", "    ", "│ ", "│ ", "│   "]


def test_code_keeps_its_blanks() -> None:
    """It is broken by columns, not by words; the fences are text."""
    found = spans("```\na  b\n```\nc", [])
    assert [span.text for span in found if span.verbatim and span.text.strip("`")] == ["a  b"]


def test_text_flows() -> None:
    """A letter that cannot be part of a marker is given out at once."""
    markdown = Markdown()
    pieces = ["Hel", "lo *wo", "rld* ", "`", "code", "` and", "\n", "- ", "it", "em"]
    shown = ["".join(span.text for span in markdown.feed(piece)) for piece in pieces]
    assert shown == ["Hel", "lo wo", "rld ", "", "code", " and", "\n", "", "• it", "em"]


def test_any_text_keeps_its_letters() -> None:
    """However wild: nothing but markers is lost, and the pieces do not matter."""
    random_ = random.Random(11)
    for _ in range(300):
        text = "".join(random_.choices("ab *_`#->|~1.\\\n中👍", k=random_.randint(1, 60)))
        one = styled(text)
        assert one == styled(text, [random_.randint(1, 5) for _ in text])
        letters = "".join(part for part, _ in one)
        for letter in "ab中👍":
            assert letters.count(letter) == text.count(letter), text
