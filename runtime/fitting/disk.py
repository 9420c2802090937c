"""How fast a disk is read, past the page cache: what streaming weights from a file can reach."""

from __future__ import annotations

import os
import sys
import tempfile
from os import PathLike

from iqrun.benchmark.disk import direct_rate

_PIECE_BYTES = 4 << 20
_MADE_BYTES = 64 << 20  # of a file to read when none was given
_DIRECT = getattr(os, "O_DIRECT", 0)  # Linux; elsewhere the page cache is in the way


def read_speed(path: str | PathLike[str] | None = None, seconds: float = 0.5) -> float | None:
    """Bytes per second of direct reads, those of a stream.

    Args:
        path: the file; None writes 64 MiB into the temporary folder (and removes them).
        seconds: how long to read.

    Returns:
        The rate, or None where it cannot be told: no direct reads on this system or file system (a temporary folder in
        memory, for one), no room, an empty file.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        if path is not None:
            return _measure(path, seconds)
        with tempfile.NamedTemporaryFile(prefix="iqrun-") as made:
            _fill(made.fileno())
            return _measure(made.name, seconds)
    except OSError:
        return None


def _fill(file: int) -> None:
    piece = os.urandom(_PIECE_BYTES)  # a disk that compresses has no easy time
    for _ in range(_MADE_BYTES // _PIECE_BYTES):
        os.write(file, piece)
    os.fsync(file)


def _measure(path: str | PathLike[str], seconds: float) -> float | None:
    file = os.open(path, os.O_RDONLY | _DIRECT | getattr(os, "O_NONBLOCK", 0))  # never waits for a writer on a FIFO
    try:
        return direct_rate([file], seconds, used=True) or None
    finally:
        os.close(file)
