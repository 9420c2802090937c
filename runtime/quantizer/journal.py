"""The journal of a quantization: what it depends on, and which tensors are finished.

A text file of JSON lines, each written after the bytes that it speaks of. A line that was cut off by a crash, and all
that follows, counts as not there; what a line says of a tensor's bytes is checked by their hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from iqrun.errors import QuantizeError
from iqrun.gguf import GGUFPlan

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Finished:
    """A tensor that is complete.

    Attributes:
        name: the tensor.
        relative_error: as in `TensorReport`.
        sha256: of its stored bytes, hexadecimal.
    """

    name: str
    relative_error: float
    sha256: str


class Journal:
    """The file, open for this process alone."""

    def __init__(self, path: Path) -> None:
        """Opens or creates it.

        Raises:
            QuantizeError: another process has it.
        """
        self.path = path
        self.depends_on: Mapping[str, str] | None = None
        self.finished: list[Finished] = []
        self._ends: list[int] = []  # where each line ends
        self._file: BinaryIO = path.open("a+b")
        try:
            _lock(self._file, path)
            self._read()
        except BaseException:
            self._file.close()
            raise

    def start(self, depends_on: Mapping[str, str]) -> None:
        """Begins anew."""
        self.depends_on, self.finished, self._ends = dict(depends_on), [], []
        self._file.truncate(0)
        self._append({"iqrun": "quantize", "depends_on": self.depends_on})

    def add(self, tensor: Finished) -> None:
        """Notes that a tensor's bytes are handed to the system."""
        self.finished.append(tensor)
        self._append(asdict(tensor))

    def cut(self, n_tensors: int) -> None:
        """Forgets all but the first `n_tensors` finished tensors."""
        del self.finished[n_tensors:], self._ends[n_tensors + 1 :]
        self._file.truncate(self._ends[-1])

    def remove(self) -> None:
        """Removes the file, while nobody else can have it."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets go of the file; safe to call twice."""
        with suppress(OSError):  # of a line that the disk had no room for, which was told when it was added
            self._file.close()

    def _append(self, line: Mapping[str, object]) -> None:
        self._file.write(json.dumps(line).encode("ascii") + b"\n")
        self._file.flush()
        self._ends.append(self._file.seek(0, os.SEEK_END))

    def _read(self) -> None:
        self._file.seek(0)
        end = 0
        for raw in self._file.read().splitlines(keepends=True):
            end += len(raw)
            if not raw.endswith(b"\n") or not self._take(raw):
                return
            self._ends.append(end)

    def _take(self, raw: bytes) -> bool:
        """Whether a line makes sense where it stands."""
        try:
            line = json.loads(raw)
            if self.depends_on is not None:
                self.finished.append(Finished(str(line["name"]), float(line["relative_error"]), str(line["sha256"])))
            else:
                self.depends_on = {str(key): str(value) for key, value in line["depends_on"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        return True


def _lock(file: BinaryIO, path: Path) -> None:
    """The system lets go of the lock when the process ends, however it does."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: nothing keeps two processes apart there
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise QuantizeError(
            f"another process is at work in {path.parent}; wait for it, or choose another name"
        ) from None
    except OSError:  # a file system without locks
        return


def count_intact(path: Path, plan: GGUFPlan, finished: Sequence[Finished]) -> int:
    """How many of a file's first tensors have the hashes that were noted."""
    data_start = plan.data_end(0)
    try:
        with path.open("rb") as file:
            for count, (info, tensor) in enumerate(zip(plan.tensors, finished, strict=False)):
                file.seek(data_start + info.offset)
                if info.name != tensor.name or _digest(file, info.n_bytes) != tensor.sha256:
                    return count
    except FileNotFoundError:
        return 0
    return len(finished)


def _digest(file: BinaryIO, n_bytes: int) -> str:
    found = hashlib.sha256()
    while n_bytes and (data := file.read(min(n_bytes, _CHUNK_BYTES))):
        found.update(data)
        n_bytes -= len(data)
    return found.hexdigest()
