"""Opens a regular file as read-only memory: mapped, or copied where nothing that happens to the file may matter."""

from __future__ import annotations

import mmap
import os
import stat
import weakref
from contextlib import suppress
from io import FileIO, RawIOBase

import numpy as np

from iqrun.errors import GGUFError
from iqrun.gguf.metadata import Bytes
from iqrun.native import check, ffi, lib

_MIN_FILE_BYTES = 24  # magic, version, two counts
_READ_BYTES = 1 << 24
# never wait for a writer on a FIFO, never hand the descriptor to a child process
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NOT_WATCHED = -1


def guard_mapped_files() -> None:
    """Makes a mapped file that another program shortens an error, at any moment. Call it once, before opening files.

    Without it such a file is noticed before and after each step; if it happens *during* a step, the system ends the
    process with SIGBUS. This installs a handler for that signal (the only one that iqrun ever touches): faults inside
    iqrun's maps become errors, every other SIGBUS goes where it went before. The command line tool calls it. A host
    that wants no handler opens its files with ``copy=True`` instead.

    Raises:
        UnsupportedModelError: the system has no such signal (Windows, where a mapped file cannot be shortened).
    """
    check(lib.iq_map_guard_install)


class MappedFile:
    """The bytes of a file.

    `close` lets go of the map. Arrays that were handed out keep it alive: the memory is returned when the last of
    them is gone, so no array ever points to unmapped memory.
    """

    def __init__(self, path: str, *, copy: bool = False) -> None:
        """Opens the file; `copy` reads it into memory of this process instead of mapping it.

        Raises:
            GGUFError: the path is not a readable, regular file of at least a header's size.
        """
        self.path = path
        self._descriptor, self._identity = _open(path)
        self._close_descriptor = weakref.finalize(self, os.close, self._descriptor)  # also for who forgets to close
        self._close_descriptor.atexit = False  # threads may still ask
        self._map: mmap.mmap | None = None
        self._slot = _NOT_WATCHED
        try:
            self.data: Bytes = self._read() if copy else self._map_file()
        except BaseException as error:
            self._close_descriptor()
            if isinstance(error, OSError):
                raise GGUFError(f"cannot read it: {error.strerror}", path=path) from error
            raise

    def check_unchanged(self) -> None:
        """Makes sure that nobody wrote to the mapped file since it was opened. A file that was copied cannot change.

        Raises:
            GGUFError: it was shortened or rewritten, or its disk failed.
        """
        if self._map is None:
            return
        if _identity(self._descriptor) != self._identity:
            what = "another program changed the file while it was open: load it again, and replace files by renaming"
            raise GGUFError(what, path=self.path)
        if lib.iq_map_guard_broken(self._slot):
            raise GGUFError("the file could not be read to its end: the disk failed, or it was cut", path=self.path)

    def reopen(self) -> int:
        """A descriptor of the same file whose reads go past the page cache, where the file system allows it.

        Raises:
            GGUFError: another file stands at the path, or it cannot be opened.
        """
        direct = getattr(os, "O_DIRECT", 0)
        try:
            descriptor = os.open(self.path, _FLAGS | direct)
        except OSError:
            descriptor, _ = _open(self.path)
        if _same_file(descriptor, self._descriptor):
            return descriptor
        os.close(descriptor)
        raise GGUFError("the file was replaced while it was opened: load it again", path=self.path)

    def forget(self) -> None:
        """Lets go of the pages that were read of the map; from now on only those that are touched are read."""
        self.release(0, len(self.data))
        if self._map is not None and hasattr(mmap, "MADV_RANDOM") and hasattr(os, "posix_fadvise"):
            self._map.madvise(mmap.MADV_RANDOM)
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def release(self, start: int, end: int) -> None:
        """Takes the pages inside ``data[start:end]`` out of this process's memory; the next access brings them back."""
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if self._map is not None and last > first and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def close(self) -> None:
        """Lets go of the map."""
        del self.data
        self._close_descriptor()
        if self._map is not None:
            with suppress(BufferError):  # arrays are still in use: the last one frees it
                self._map.close()

    def _map_file(self) -> Bytes:
        self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_HUGEPAGE"):  # what is read from disk comes in pages of 2 MiB where the system can:
            with suppress(OSError):  # weights stream a fifth faster through them
                self._map.madvise(mmap.MADV_HUGEPAGE)
        data = np.frombuffer(self._map, np.uint8)
        self._slot = lib.iq_map_guard_watch(ffi.from_buffer(data), data.size)
        weakref.finalize(self._map, lib.iq_map_guard_forget, self._slot).atexit = False  # threads may still read
        return data

    def _read(self) -> Bytes:
        """The whole file; its size is that of the moment when it was opened."""
        data = np.empty(self._identity[0], np.uint8)
        with FileIO(self._descriptor, closefd=False) as file:
            for start in range(0, data.size, _READ_BYTES):
                _read_all(file, data.data[start : start + _READ_BYTES], self.path)
        data.flags.writeable = False
        return data


def _open(path: str) -> tuple[int, tuple[int, int]]:
    """A descriptor of a regular file of sensible size, and its identity."""
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise GGUFError(f"cannot open it: {reason}", path=path) from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size >= _MIN_FILE_BYTES:
        return descriptor, _identity(descriptor)
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise GGUFError("not a regular file; give the path of a GGUF file", path=path)
    raise GGUFError(f"not a GGUF file: it has only {status.st_size} bytes", path=path)


def _same_file(one: int, other: int) -> bool:
    a, b = os.fstat(one), os.fstat(other)
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def _identity(descriptor: int) -> tuple[int, int]:
    """Size and time of the last write: what changes when somebody writes to the file."""
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def _read_all(file: RawIOBase, target: memoryview, path: str) -> None:
    """Fills `target` from the file."""
    filled = 0
    while filled < len(target):
        n_bytes = file.readinto(target[filled:])
        if not n_bytes:
            raise GGUFError("another program shortened the file while it was read: try again", path=path)
        filled += n_bytes
