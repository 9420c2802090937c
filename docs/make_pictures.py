"""Makes the pictures of the chat: real sessions in a terminal of fixed size, drawn as SVG.

pip install -e '.[test]' && python docs/make_pictures.py
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path

from wcwidth import wcswidth

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.pty_terminal import Terminal  # noqa: E402

IMAGES = ROOT / "docs" / "images"
CELL_WIDTH, CELL_HEIGHT, LEFT, TOP = 8.4, 19, 15, 58
FOREGROUND, BACKGROUND = "#d7dae0", "#1e2227"
COLORS = {"default": FOREGROUND, "magenta": "#c678dd", "faint": "#7f8793"}
SECONDS_PER_KEY = 0.05
EXAMPLE = """\
<think>
The user wants a recipe. I keep it **short**.
</think>

## Pancakes

Mix *gently*, with a `whisk`, and **do not hurry**:

1. two eggs, a pinch of salt and as much milk as it takes until the batter runs off the spoon
2. flour

```python
for side in ("first", "second"):
    fry(side, minutes=2)
```

> Serve them at once.
"""

Frame = tuple[str, ...]


class Recorder(Terminal):
    """A terminal that keeps what its screen showed, and when.

    Attributes:
        frames: seconds since the start, and the rows as SVG.
    """

    def __init__(self, *words: str, columns: int, lines: int, **environment: str) -> None:
        super().__init__(*words, columns=columns, lines=lines, **environment)
        self._start = time.monotonic()
        self.frames: list[tuple[float, Frame]] = []

    def type(self, text: str) -> None:
        """Types at the speed of a person, then hits Enter."""
        for key in (*text, "\r"):
            self.keys(key)
            self._read(SECONDS_PER_KEY)

    def _read(self, seconds: float = 60.0) -> bool:
        found = super()._read(seconds)
        if found:
            self.frames.append((time.monotonic() - self._start, tuple(rows(self))))
        return found


def rows(terminal: Terminal) -> Iterator[str]:
    """Each row of the screen as SVG: a text for each run of one style, a box behind what is reversed."""
    for y in range(terminal.screen.lines):
        cells = [terminal.screen.buffer[y][x] for x in range(terminal.screen.columns)]
        parts, x = [], 0
        for (color, bold, italic, reverse), run in groupby(cells, lambda c: (c.fg, c.bold, c.italics, c.reverse)):
            text = "".join(cell.data for cell in run)
            left, width = LEFT + x * CELL_WIDTH, max(wcswidth(text), 0) * CELL_WIDTH
            x += max(wcswidth(text), 0)
            if reverse:
                box = (
                    f'<rect x="{left:.1f}" y="{TOP - 14 + y * CELL_HEIGHT}" width="{width:.1f}" height="{CELL_HEIGHT}"'
                )
                parts.append(f'{box} fill="{FOREGROUND}"/>')
            elif not text.strip():
                continue
            style = f'fill="{BACKGROUND if reverse else COLORS.get(color, FOREGROUND)}"'
            style += ' font-weight="bold"' if bold else ""
            style += ' font-style="italic"' if italic else ""
            place = f'x="{left:.1f}" y="{TOP + y * CELL_HEIGHT}" textLength="{width:.1f}"'
            parts.append(f"<text {place} {style}>{escape(text)}</text>")
        yield "".join(parts)


def window(content: str, columns: int, lines: int, title: str) -> str:
    """A terminal's window around its rows."""
    width, height = 2 * LEFT + columns * CELL_WIDTH, TOP + lines * CELL_HEIGHT
    font = 'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" xml:space="preserve"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}"><rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>'
        '<circle cx="20" cy="20" r="6" fill="#e06c75"/><circle cx="40" cy="20" r="6" fill="#e5c07b"/>'
        f'<circle cx="60" cy="20" r="6" fill="#98c379"/><g {font}>{content}</g></svg>\n'
    )


def moving(frames: list[tuple[float, Frame]], pause: float) -> str:
    """Frames one after the other, again and again; a row is written once for each time that it does not change."""
    times = [at - frames[0][0] for at, _ in frames] + [frames[-1][0] - frames[0][0] + pause]
    total, parts = times[-1], []
    for y in range(len(frames[0][1])):
        for row, run in groupby(range(len(frames)), lambda index, y=y: frames[index][1][y]):
            indices = list(run)
            begin, end = times[indices[0]] / total, times[indices[-1] + 1] / total
            if row:
                still = "" if end >= 1 else ' visibility="hidden"'  # where nothing moves, the last frame is shown
                parts.append(f"<g{still}>{_visible(begin, end, total)}{row}</g>")
    return "".join(parts)


def _visible(begin: float, end: float, total: float) -> str:
    """An animation that shows its parent from `begin` to `end`, shares of the whole."""
    moments = [(0.0, "hidden"), (begin, "visible"), (end, "hidden")]
    moments = moments[1:] if begin == 0 else moments
    moments = moments[:-1] if end >= 1 else moments
    values, key_times = ";".join(v for _, v in moments), ";".join(f"{t:.4f}" for t, _ in moments)
    kind = 'attributeName="visibility" calcMode="discrete" repeatCount="indefinite"'
    return f'<animate {kind} dur="{total:.2f}s" values="{values}" keyTimes="{key_times}"/>'


def demo_session(home: str) -> Recorder:
    """`iqrun demo`: a question and its numbers."""
    os.environ.update(IQRUN_CACHE=home, XDG_DATA_HOME=home)
    words = ("-m", "iqrun", "demo", "--seed", "2")
    Terminal(*words, "--prompt", "Hi", "-n", "1").end()  # the model is there now, as at a second start
    terminal = Recorder(*words, columns=80, lines=19)
    terminal.wait("context 0/1024")
    terminal.settle(1.0)
    terminal.type("Tell me a story about a cat.")
    terminal.wait(r"\n>[ \n]+ context")
    terminal.settle(1.0)
    terminal.type("/stats")
    terminal.wait(r"2\s+messages")
    terminal.settle(1.0)
    return terminal


def markdown_session(home: str) -> Recorder:
    """How Markdown and thinking appear; the text is given, the demo model writes none."""
    script = Path(home) / "answers.json"
    script.write_text(json.dumps({"answers": [EXAMPLE], "seconds": 0.01, "n_ctx": 4096}))
    terminal = Recorder("-m", "tests.scripted_chat", str(script), columns=60, lines=24)
    terminal.wait("context 0/4096")
    terminal.type("How do I make pancakes?")
    terminal.wait("at once.")
    terminal.settle(1.0)
    return terminal


def save(name: str, terminal: Recorder, title: str, *, animated: bool = False) -> None:
    """Writes the last screen, or all of them as a film."""
    content = moving(terminal.frames, pause=6.0) if animated else "".join(terminal.frames[-1][1])
    screen = terminal.screen
    (IMAGES / name).write_text(window(content, screen.columns, screen.lines, title), encoding="utf-8")


def main() -> None:
    """Draws every picture."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        with demo_session(home) as terminal:
            save("chat.svg", terminal, "iqrun demo: a question, an answer, the status bar")
            save("chat-live.svg", terminal, "iqrun demo at its real speed", animated=True)
        with markdown_session(home) as terminal:
            save("markdown.svg", terminal, "Markdown and thinking in the chat, with a given text")


if __name__ == "__main__":
    main()
