"""Writes GGUF files: the header is planned first, then the tensors are streamed, then the file appears at once."""

from __future__ import annotations

import os
from contextlib import suppress
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt

from iqrun.errors import GGUFError, ResourceError
from iqrun.gguf.part_file import PartFile, disk_error, sync_folder
from iqrun.gguf.plan import GGUFPlan
from iqrun.whole_file import remove_unfinished


class GGUFWriter:
    """Streams a planned file to disk. The file appears under its name complete, or not at all.

    Data goes to a temporary file in the same folder, which is renamed when all tensors are there and on disk, and
    removed if anything goes wrong inside the ``with`` block. What a killed process left is removed by the next writer.

    Example:
        >>> with GGUFWriter("out.gguf", plan) as writer:
        ...     for info in plan.tensors:
        ...         writer.write(data_of(info.name))
    """

    def __init__(self, path: str | PathLike[str], plan: GGUFPlan, *, overwrite: bool = False) -> None:
        """`overwrite`: an existing file is replaced at the end; until then it stays as it is."""
        self.path = Path(fspath(path)).resolve()
        self._plan = plan
        self._overwrite = overwrite
        self._part = PartFile(self.path.with_name(f".{self.path.name}.{os.urandom(4).hex()}.part"), plan)

    def __enter__(self) -> GGUFWriter:
        """Creates the temporary file and writes the header.

        Raises:
            GGUFError: the path exists and must not be replaced, or cannot be written.
            ResourceError: the disk is full.
        """
        self._check_target()
        try:
            remove_unfinished(self.path)
            self._part.create()
        except OSError as error:
            self._discard()
            raise self._failure(error) from error
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, data: bytes | memoryview | npt.NDArray[Any]) -> None:
        """Appends bytes to the tensor at hand; the next one begins when it is full.

        Raises:
            ValueError: more bytes than the tensor has.
            ResourceError: the disk is full.
        """
        try:
            self._part.write(data)
        except OSError as error:
            raise self._failure(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the file in place, or removes what was written."""
        if kind is not None:
            self._discard()
            return
        try:
            self._commit()
        except OSError as reason:
            raise self._failure(reason) from reason
        finally:
            self._discard()

    def _check_target(self) -> None:
        if self.path.is_dir() or (self.path.exists() and not self.path.is_file()):
            raise GGUFError("not a regular file, so it cannot be replaced; choose another name", path=self.path)
        if self.path.exists() and not self._overwrite:
            raise GGUFError("the file exists; choose another name or allow overwriting", path=self.path)

    def _commit(self) -> None:
        self._part.finish()
        self._check_target()
        self._part.path.replace(self.path)
        sync_folder(self.path.parent)

    def _discard(self) -> None:
        """Closes and removes the temporary file, if it is still there."""
        with suppress(OSError):
            self._part.close()
        with suppress(OSError):
            self._part.path.unlink(missing_ok=True)

    def _failure(self, error: OSError) -> GGUFError | ResourceError:
        return disk_error(error, self.path, self._plan.file_bytes, "nothing was left behind")
