"""Makes the pictures of the documentation: real sessions in a terminal of fixed size, drawn as SVG.

pip install -e '.[pictures]' && python docs/make_pictures.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from html import escape
from pathlib import Path

import pexpect
import pyte

IMAGES = Path(__file__).parent / "images"
COLUMNS, LINES = 96, 27
CELL_WIDTH, CELL_HEIGHT = 8.4, 19


def chat_session(cache: str) -> pyte.Screen:
    """`iqrun demo`, one question, /stats."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    environment = {**os.environ, "IQRUN_CACHE": "cache", "XDG_DATA_HOME": cache, "TERM": "xterm-256color"}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "iqrun.cli.main", "demo", "--seed", "7"],
        env=environment,
        cwd=cache,
        dimensions=(LINES, COLUMNS),
        timeout=120,
    )
    stream.feed(b"$ iqrun demo\r\n")
    answers = [
        (rb"cat\.[\s\S]*\?25h", "Tell me a story about a cat.\r"),
        (rb"tokens/s; prompt", "/stats\r"),
        (rb"messages", ""),
    ]
    for pattern, typed in answers:
        child.expect(pattern)
        stream.feed(child.before + child.after)
        child.send(typed)
    while child.expect([rb"[\s\S]+", pexpect.TIMEOUT], timeout=1) == 0:
        stream.feed(child.after)
    child.sendeof()
    child.close(force=True)
    return screen


def draw(screen: pyte.Screen, title: str, path: Path) -> None:
    """The screen's text as an SVG of a terminal window."""
    lines = "\n".join(screen.display).rstrip().split("\n")
    width, height = 30 + COLUMNS * CELL_WIDTH, 60 + len(lines) * CELL_HEIGHT
    rows = "".join(
        f'<text x="15" y="{58 + i * CELL_HEIGHT}" textLength="{len(line) * CELL_WIDTH}">{escape(line)}</text>'
        for i, line in enumerate(map(str.rstrip, lines))
        if line
    )
    font = 'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" xml:space="preserve"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
    path.write_text(
        f'{head} aria-label="{escape(title)}"><rect width="{width}" height="{height}" rx="8" fill="#1e2227"/>'
        '<circle cx="20" cy="20" r="6" fill="#e06c75"/><circle cx="40" cy="20" r="6" fill="#e5c07b"/>'
        f'<circle cx="60" cy="20" r="6" fill="#98c379"/><g fill="#d7dae0" {font}>{rows}</g></svg>\n',
        encoding="utf-8",
    )


def main() -> None:
    """Draws every picture."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        draw(chat_session(cache), "iqrun demo", IMAGES / "chat.svg")


if __name__ == "__main__":
    main()
