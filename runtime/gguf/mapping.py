"""Opens a regular file as read-only memory."""

from __future__ import annotations

import mmap
import os
import stat
from contextlib import suppress

import numpy as np

from iqrun.errors import GGUFError
from iqrun.gguf.metadata import Bytes

_MIN_FILE_BYTES = 24  # magic, version, two counts
# never wait for a writer on a FIFO, never hand the descriptor to a child process
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class MappedFile:
    """The bytes of a file, mapped.

    `close` lets go of the map. Arrays that were handed out keep it alive: the memory is returned when the last of
    them is gone, so no array ever points to unmapped memory.
    """

    def __init__(self, path: str) -> None:
        """Raises GGUFError: the path is not a readable, regular file of at least a header's size."""
        self.path = path
        self._map = _map(path)
        self.data: Bytes = np.frombuffer(self._map, np.uint8)

    def release(self, start: int, end: int) -> None:
        """Takes the pages inside ``data[start:end]`` out of this process's memory; the next access brings them back."""
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def close(self) -> None:
        """Lets go of the map."""
        del self.data
        with suppress(BufferError):  # arrays are still in use: the last one frees it
            self._map.close()


def _map(path: str) -> mmap.mmap:
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise GGUFError(f"cannot open it: {reason}", path=path) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise GGUFError("not a regular file; give the path of a GGUF file", path=path)
        if status.st_size < _MIN_FILE_BYTES:
            raise GGUFError(f"not a GGUF file: it has only {status.st_size} bytes", path=path)
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise GGUFError(f"cannot map it: {error.strerror}", path=path) from error
    finally:
        os.close(descriptor)
