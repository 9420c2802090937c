"""A file that is written in pieces of 2 MiB, each beginning at a multiple of that.

Linux then keeps it in the page cache in pages of 2 MiB, where smaller writes leave pages of 4 KiB; and a model is read
faster from large pages for as long as the cache has it (docs/performance.md).
"""

from __future__ import annotations

from errno import EIO
from io import SEEK_SET, FileIO

PIECE_BYTES = 2 << 20


class PieceFile:
    """Bytes in order, up to a size that is known before."""

    def __init__(self, raw: FileIO, n_bytes: int, at: int = 0) -> None:
        """Goes on behind the first `at` bytes of a file; the others are cut off, missing ones are zeros.

        Args:
            raw: open for writing, and for reading unless `at` is 0; closed by `close`.
            n_bytes: size of the finished file.
            at: bytes that are there.
        """
        self._raw, self._n_bytes = raw, n_bytes
        self._buffer = memoryview(bytearray(min(PIECE_BYTES, n_bytes)))
        self._start = at // PIECE_BYTES * PIECE_BYTES  # of the piece at hand
        self._filled = at - self._start  # bytes of it
        raw.truncate(at)
        self._read()

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes, which reach the system when their piece is full."""
        view = memoryview(data).cast("B")
        while view:
            if self._filled == 0 and len(view) >= PIECE_BYTES:
                n = len(view) // PIECE_BYTES * PIECE_BYTES  # no copy of whole pieces
                self._put(view[:n], n)
                self._start += n
            else:
                n = min(len(self._buffer) - self._filled, len(view))
                self._buffer[self._filled : self._filled + n] = view[:n]
                self._filled += n
                if self._filled == PIECE_BYTES:
                    self._put(self._buffer, PIECE_BYTES)
                    self._start, self._filled = self._start + PIECE_BYTES, 0
            view = view[n:]

    def flush(self) -> None:
        """Hands all bytes to the system.

        A piece that is not full is written whole, as far as the finished file will reach, and once more when it is
        full: what matters is the size of the write that brings it into the cache.
        """
        if self._filled:
            self._put(self._buffer[: self._n_bytes - self._start], self._filled)

    def fileno(self) -> int:
        """The descriptor."""
        return self._raw.fileno()

    def close(self) -> None:
        """Closes the file, with what was flushed; safe to call twice."""
        self._raw.close()

    def _read(self) -> None:
        """Fetches what is there of the piece at hand."""
        self._raw.seek(self._start, SEEK_SET)
        n_read = 0
        while n_read < self._filled:
            n = self._raw.readinto(self._buffer[n_read : self._filled])
            if not n:
                raise OSError(EIO, "another program cuts the file short", self._raw.name)
            n_read += n

    def _put(self, data: memoryview, n_needed: int) -> None:
        """Writes data where the piece at hand begins; what is beyond `n_needed` bytes, if the disk has room."""
        self._raw.seek(self._start, SEEK_SET)
        n_done = 0
        while n_done < n_needed:
            n_done += self._raw.write(data[n_done:]) or 0
