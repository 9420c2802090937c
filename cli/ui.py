"""What the commands share for the terminal: progress, tables, sizes, JSON. Answers go to stdout, the rest to stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from threading import Lock
from types import TracebackType
from typing import Any, TextIO

from iqrun.text_tables import is_number


def stderr(*parts: object, end: str = "\n") -> None:
    """Prints a remark that is not part of the answer."""
    print(*parts, file=sys.stderr, end=end, flush=True)


def warn(texts: Iterable[str]) -> None:
    """Prints warnings, one a line."""
    for text in texts:
        stderr(f"warning: {printable(text)}")


def print_json(value: object) -> None:
    """Prints a value as indented JSON, in the order of its keys; text stays readable, NaN is refused."""
    encoder = json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.writelines(encoder.iterencode(value))  # piece by piece: a vocabulary is megabytes
    print()


def printable(text: str) -> str:
    """Text with control characters and broken UTF-8 as escapes: a name from a file must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def without_controls(text: str) -> str:
    """Text without control characters, but with its lines and tabs: a model's words must not steer a terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def human_bytes(n_bytes: float) -> str:
    """A size as people read it, in powers of 1024: ``24.4 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n_bytes) < 1023.95:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """A duration as ``42s``, ``3m05s`` or ``2h07m``."""
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m{total % 60:02d}s"
    return f"{total // 3600}h{total // 60 % 60:02d}m"


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, width: int | None = None) -> str:
    """Aligned text: numbers to the right, words to the left, no rules, so that `cut` and `awk` can read it.

    Args:
        headers: the titles of the columns.
        rows: the cells; each row has as many as there are headers.
        width: characters per line; by default the terminal's width on a terminal, no limit in a pipe. If the table is
            wider, its longest words are shortened in the middle.

    Returns:
        The lines, joined, without a newline at the end.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    right = [bool(cells) and all(is_number(row[i]) for row in cells) for i in range(len(headers))]
    widths = [max(len(line[i]) for line in [list(headers), *cells]) for i in range(len(headers))]
    limit = width if width is not None else _line_width(sys.stdout)
    _shrink(widths, limit - 2 * (len(headers) - 1))
    lines = []
    for line in [list(headers), *cells]:
        parts = [_cut(text, size) for text, size in zip(line, widths, strict=True)]
        padded = [p.rjust(s) if r else p.ljust(s) for p, s, r in zip(parts, widths, right, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


class Progress:
    """A bar on stderr with percent, rate and time left; silent where stderr is not a terminal.

    Use it as a context manager, and call it as a callback: ``progress(done, total, note)``::

        with Progress("quantizing", unit="B") as progress:
            iqrun.quantize(src, dst, "IQ3_K", progress=progress)
    """

    def __init__(self, title: str, *, unit: str = "", stream: TextIO | None = None) -> None:
        """Starts the clock.

        Args:
            title: what goes on, one or two words.
            unit: what is counted, e.g. ``tokens``; ``B`` shows sizes.
            stream: where to draw (default stderr).
        """
        self._title = title
        self._unit = unit
        self._stream = stream if stream is not None else sys.stderr
        self._shown = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._start = time.monotonic()
        self._last = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown and self._last:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __call__(self, done: float, total: float, note: str = "", **_: Any) -> None:
        """Draws the state, at most ten times a second (the end always)."""
        now = time.monotonic()
        if not self._shown or (now - self._last < 0.1 and done < total):
            return
        self._last = now
        self._stream.write("\r\x1b[K" + self.line(done, total, now - self._start, _line_width(self._stream) - 1, note))
        self._stream.flush()

    def line(self, done: float, total: float, seconds: float, width: int, note: str = "") -> str:
        """The text of the bar, at most `width` characters; what matters least is left out first."""
        share = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
        parts = [f"{share:4.0%}", *self._times(done, total, seconds), *([printable(note)] if note else [])]
        while len(parts) > 1 and len(self._title) + 1 + len("  ".join(parts)) > width:
            parts.pop()
        tail = "  ".join(parts)
        bar = min(24, width - len(self._title) - len(tail) - 4)
        middle = f"[{'#' * int(share * bar):.<{bar}}]" if bar >= 6 else ""
        return _cut(" ".join(part for part in (self._title, middle, tail) if part), width)

    def _times(self, done: float, total: float, seconds: float) -> list[str]:
        """Time left (at the end: taken) and rate, once they can be told."""
        if seconds <= 0 or done <= 0:
            return []
        if done >= total:
            return [human_seconds(seconds), self._rate(done / seconds)]
        return [f"{human_seconds(seconds * (total - done) / done)} left", self._rate(done / seconds)]

    def _rate(self, per_second: float) -> str:
        if self._unit == "B":
            return f"{human_bytes(per_second)}/s"
        return f"{per_second:.{0 if per_second >= 100 else 1}f} {self._unit or 'steps'}/s"


class Furthest:
    """Several who work at one task, seen as the one that is furthest: a bar that never goes back.

    They may call it from different threads.
    """

    def __init__(self, progress: Progress) -> None:
        """Draws on this bar."""
        self._progress = progress
        self._share = 0.0
        self._lock = Lock()

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """As `Progress`; the totals may differ from caller to caller."""
        with self._lock:
            share = done / total if total > 0 else 0.0
            if share >= self._share:
                self._share = share
                self._progress(done, total, note)


def _line_width(stream: TextIO) -> int:
    """Characters per line of a terminal; practically unlimited for a pipe or a file."""
    return shutil.get_terminal_size().columns if stream.isatty() else 1_000_000


def _shrink(widths: list[int], limit: int) -> None:
    """Takes characters from the widest columns until the line fits or nothing wider than 8 is left."""
    while sum(widths) > limit and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1


def _cut(text: str, size: int) -> str:
    """The text in at most `size` characters, shortened in the middle: both ends of a tensor name tell something."""
    if len(text) <= size:
        return text
    head = (size - 1) // 2
    return text[:head] + "~" + text[len(text) - (size - 1 - head) :] if size > 1 else text[:size]
