"""The growing bytes of a planned file, before it gets its name."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iqrun.errors import GGUFError, ResourceError
from iqrun.gguf.piece_file import PieceFile
from iqrun.gguf.plan import GGUFPlan

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class PartFile:
    """A header and then the tensors in order. What becomes of the file in the end is its user's business.

    The methods raise `OSError`; `disk_error` turns it into a sentence.
    """

    def __init__(self, path: Path, plan: GGUFPlan) -> None:
        """Nothing is opened yet."""
        self.path = path
        self._plan = plan
        self._tensors = plan.tensors
        self._file: PieceFile | None = None
        self._at = 0  # index of the tensor at hand
        self._written = 0  # bytes of it

    def create(self) -> None:
        """Creates the file, which must not exist, and writes the header."""
        self._file = PieceFile(self.path.open("xb", buffering=0), self._plan.file_bytes)
        self._file.write(self._plan.encode())

    def reopen(self, n_tensors: int) -> None:
        """Opens an unfinished file behind its first `n_tensors` tensors; what follows them is cut off."""
        raw = self.path.open("r+b", buffering=0)
        self._file = PieceFile(raw, self._plan.file_bytes, self._plan.data_end(n_tensors))
        self._at = n_tensors

    def write(self, data: bytes | memoryview | npt.NDArray[Any]) -> None:
        """Appends bytes to the tensor at hand; the next one begins when it is full.

        Raises:
            ValueError: more bytes than the tensor has.
        """
        assert self._file is not None
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data if isinstance(data, np.ndarray) else data
        info = self._tensors[self._at] if self._at < len(self._tensors) else None
        left = 0 if info is None else info.n_bytes - self._written
        if len(data) > left:
            what = "the file" if info is None else info.name
            raise ValueError(f"{what} needs only {left} more bytes, not {len(data)}")
        self._file.write(data)
        self._written += len(data)
        if info is not None and self._written == info.n_bytes:
            self._file.write(bytes(-info.n_bytes % self._plan.alignment))
            self._at, self._written = self._at + 1, 0

    def flush(self) -> None:
        """Hands all bytes to the system: they survive the end of this process."""
        if self._file is not None:
            self._file.flush()

    def finish(self) -> None:
        """Puts the bytes on disk and closes the file.

        Raises:
            ValueError: a tensor is not complete.
        """
        assert self._file is not None
        if self._at < len(self._tensors):
            raise ValueError(f"tensor {self._tensors[self._at].name!r} is not complete")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()


def disk_error(error: OSError, path: Path, need: int, aftermath: str) -> GGUFError | ResourceError:
    """The exception for a failed write: `need` is the size wanted, `aftermath` what the user finds on the disk."""
    if error.errno in _DISK_FULL:
        return ResourceError(f"{path}: the disk is full; the file needs {need} bytes, and {aftermath}")
    return GGUFError(f"cannot write it: {error.strerror or error}; {aftermath}", path=path)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable, where the system lets folders be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
