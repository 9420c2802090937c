"""A bounds-checked way through the bytes of a file."""

from __future__ import annotations

import struct

from iqrun.errors import GGUFError
from iqrun.gguf.metadata import Bytes


class Cursor:
    """A position in a file's bytes that cannot leave them."""

    __slots__ = ("_view", "data", "offset", "path")

    def __init__(self, data: Bytes, path: str) -> None:
        """`path` names the file in errors."""
        self.data = data
        self._view = data.data
        self.path = path
        self.offset = 0

    @property
    def remaining(self) -> int:
        """Bytes left."""
        return len(self.data) - self.offset

    def fail(self, what: str, *, key: str | None = None, offset: int | None = None) -> GGUFError:
        """An error to raise, about this place or `offset`."""
        return GGUFError(what, path=self.path, key=key, offset=self.offset if offset is None else offset)

    def skip(self, n_bytes: int, what: str) -> int:
        """Steps over `n_bytes` that must be there; returns where they begin."""
        start = self.offset
        if n_bytes > self.remaining:
            raise self.fail(
                f"{what} needs {n_bytes} bytes, but only {self.remaining} are left: the file is damaged or cut"
            )
        self.offset += n_bytes
        return start

    def u32(self, what: str) -> int:
        """The next unsigned 32-bit integer."""
        return int(struct.unpack_from("<I", self._view, self.skip(4, what))[0])

    def u64(self, what: str) -> int:
        """The next unsigned 64-bit integer."""
        return int(struct.unpack_from("<Q", self._view, self.skip(8, what))[0])

    def name(self, what: str, max_bytes: int) -> str:
        """A key or tensor name; bytes that are not UTF-8 survive as surrogates, so that distinct names stay so."""
        at = self.offset
        n_bytes = self.u64(f"the length of {what}")
        if not 1 <= n_bytes <= max_bytes:
            raise self.fail(f"{what} is {n_bytes} bytes long, but must have 1 to {max_bytes}", offset=at)
        start = self.skip(n_bytes, what)
        return self.data[start : start + n_bytes].tobytes().decode("utf-8", "surrogateescape")
