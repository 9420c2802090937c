"""A terminal with a screen: runs a program in a pseudo-terminal and shows what a user would see."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pexpect
import pyte

ROOT = Path(__file__).parents[1]
SECONDS = 60.0  # until something must have happened; it usually takes a tenth of one


class Screen(pyte.HistoryScreen):
    """Knows faint letters, too: as a color of that name."""

    def select_graphic_rendition(self, *attrs: int, **kwargs: Any) -> None:
        super().select_graphic_rendition(*attrs, **kwargs)
        if 2 in attrs:
            self.cursor.attrs = self.cursor.attrs._replace(fg="faint")


class Terminal:
    """As xterm would do it: draws, answers questions about the cursor, sends keys.

    Attributes:
        screen: what is on the screen.
        sent: every byte that the program wrote.
    """

    def __init__(self, *words: str, columns: int = 80, lines: int = 24, **environment: str) -> None:
        """Starts ``python WORDS``."""
        self.screen = Screen(columns, lines, history=5000, ratio=1)
        self.screen.write_process_input = self._reply
        self._stream = pyte.ByteStream(self.screen)
        variables = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "PROMPT_TOOLKIT_NO_CPR")}
        variables.update(TERM="xterm-256color", LANG="C.UTF-8", **environment)
        self.sent = b""
        self.child = pexpect.spawn(
            sys.executable, [*words], env=variables, cwd=str(ROOT), dimensions=(lines, columns), timeout=SECONDS
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.close(force=True)

    def lines(self) -> list[str]:
        """The lines that scrolled away, and those on the screen; without the blanks and empty lines at their ends."""
        screen = self.screen
        gone = ["".join(line[x].data for x in range(screen.columns)) for line in screen.history.top]
        return "\n".join(line.rstrip() for line in [*gone, *screen.display]).rstrip().split("\n")

    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.lines())

    def row(self, n: int) -> str:
        """A row of the screen; -1 is the lowest."""
        return str(self.screen.display[n]).rstrip()

    def styles(self, word: str) -> dict[str, Any]:
        """How the first letter of a word on the screen is written."""
        for y, line in enumerate(self.screen.display):
            if (x := line.find(word)) >= 0:
                cell = self.screen.buffer[y][x]
                return {"bold": cell.bold, "italic": cell.italics, "color": cell.fg, "reverse": cell.reverse}
        raise AssertionError(f"{word!r} is not on the screen:\n{self.text()}")

    def keys(self, text: str) -> None:
        """Hits keys: letters, or control characters such as ``\\x03`` for Ctrl-C."""
        self.child.send(text.encode())

    def paste(self, text: str) -> None:
        """Pastes: as a terminal does that was asked to mark what is pasted."""
        assert b"\x1b[?2004h" in self.sent, "the program did not ask for marks around what is pasted"
        self.keys(f"\x1b[200~{text}\x1b[201~".replace("\n", "\r"))

    def wait(self, pattern: str, *, within: str = "text") -> re.Match[str]:
        """Waits until something is on the screen, or (`within="sent"`) was sent; returns the match."""
        deadline = time.monotonic() + SECONDS
        while True:
            where = self.text() if within == "text" else self.sent.decode("utf-8", "replace")
            found = re.search(pattern, where)
            if found is not None:
                return found
            if not self._read() or time.monotonic() > deadline:
                raise AssertionError(f"{pattern!r} does not come:\n{self.text()}")

    def settle(self, seconds: float = 0.2) -> None:
        """Waits until nothing more comes."""
        while self._read(seconds):
            pass

    def end(self) -> int:
        """Waits for the program's end; returns its exit code."""
        while self._read():
            pass
        self.child.close()
        return int(self.child.exitstatus)

    def _read(self, seconds: float = SECONDS) -> bool:
        try:
            data = self.child.read_nonblocking(65536, seconds)
        except (pexpect.EOF, pexpect.TIMEOUT):
            return False
        self.sent += data
        self._stream.feed(data)
        return True

    def _reply(self, data: str) -> None:
        self.child.send(data.encode())
