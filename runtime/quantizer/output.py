"""Where the encoded tensors go: one file or several, which appear together when the last byte is on disk.

Until then they grow in a folder ``OUT.part`` beside a journal. A killed process leaves the folder behind; the next run
verifies the finished tensors by their hashes and goes on after them. The moments at which a process can die:

- before the last tensor is finished: the bytes after the last good one are cut off and made again;
- while the files get their names: those that are still in the folder get theirs;
- before the folder is gone: it is removed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from iqrun.errors import GGUFError, QuantizeError, ResourceError
from iqrun.gguf import GGUFPlan
from iqrun.gguf.hashes import set_hashes
from iqrun.gguf.part_file import PartFile, disk_error, sync_folder
from iqrun.quantizer import checks
from iqrun.quantizer.journal import Finished, Journal, count_intact
from iqrun.quantizer.shards import shard_paths


class Output:
    """Takes the tensors' bytes in order. Use it as a context manager: at the end the files are put in place.

    Attributes:
        path: the file asked for.
        paths: the files that will be there: `path`, or its shards.
    """

    def __init__(
        self,
        path: Path,
        plans: Sequence[GGUFPlan],
        depends_on: Mapping[str, str],
        *,
        resume: bool = False,
        overwrite: bool = False,
        hashes: bool = False,
    ) -> None:
        """Nothing is touched yet.

        Args:
            path: the file to write; with several `plans` the name that their numbers are added to.
            plans: the headers.
            depends_on: what the bytes depend on, and a digest of each: an earlier run is gone on with if all are equal.
            resume: go on where an earlier run was stopped, and leave the folder for the next one if this one fails.
            overwrite: replace files that exist, and forget an earlier run.
            hashes: store the tensors' SHA-256, for which the first header has room.
        """
        self.path = path.resolve()
        self.paths = shard_paths(self.path, len(plans))
        self._plans, self._depends_on = plans, depends_on
        self._resume, self._overwrite, self._hashes = resume, overwrite, hashes
        self._folder = self.path.with_name(self.path.name + ".part")
        self._parts = [self._folder / f"{number:05d}.gguf" for number in range(1, len(plans) + 1)]
        self._first = [0, *accumulate(len(plan.tensors) for plan in plans)]  # index of each file's first tensor
        self._names = [info.name for plan in plans for info in plan.tensors]
        self._sha256 = hashlib.sha256()  # of the tensor at hand
        self._file: PartFile | None = None
        self._journal: Journal | None = None

    @property
    def finished(self) -> Sequence[Finished]:
        """The tensors that are complete, in order; on entering, those that an earlier run has left."""
        assert self._journal is not None
        return self._journal.finished

    def __enter__(self) -> Output:
        """Finds out what is there already, and checks that the rest can be written.

        Raises:
            QuantizeError: files are in the way, another process is at work, or an earlier run does not fit.
            ResourceError: the disk is too small.
            GGUFError: the folder cannot be written.
        """
        if not self._folder.is_dir():
            checks.targets(self.paths, self._n_bytes, self._overwrite)
        try:
            self._folder.mkdir(exist_ok=True)
            self._journal = Journal(self._folder / "journal.jsonl")
            self._begin(self._journal)
        except BaseException as error:
            self._close(remove=False)
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise
        return self

    def write(self, data: npt.NDArray[np.uint8]) -> None:
        """Appends bytes to the tensor at hand.

        Raises:
            ResourceError: the disk is full.
            GGUFError: it cannot be written.
        """
        try:
            if self._file is None:
                self._file = self._open_file(len(self.finished))
            self._file.write(data)
        except OSError as error:
            raise self._failure(error) from error
        self._sha256.update(data.data)

    def finish_tensor(self, relative_error: float) -> None:
        """Says that the tensor at hand is complete.

        Raises:
            ResourceError: the disk is full.
            GGUFError: it cannot be written.
        """
        assert self._journal is not None and self._file is not None
        index = len(self.finished)
        try:
            self._file.flush()
            self._journal.add(Finished(self._names[index], relative_error, self._sha256.hexdigest()))
            if index + 1 in self._first:
                self._file.close()
                self._file = None
        except OSError as error:
            raise self._failure(error) from error
        self._sha256 = hashlib.sha256()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the files in place; or removes what was written, unless it is to be resumed."""
        done = False
        try:
            if kind is None:
                self._commit()
                done = True
        except OSError as reason:
            raise self._failure(reason) from reason
        finally:
            self._close(remove=done or not self._resume)

    # ---- beginning ----

    def _begin(self, journal: Journal) -> None:
        if self._resume and journal.finished:
            self._check_same(journal)
            journal.cut(self._n_intact(journal.finished))
        elif journal.finished and not self._overwrite:
            n_done, n_tensors = len(journal.finished), len(self._names)
            raise QuantizeError(
                f"{self._folder} holds an unfinished run ({n_done} of {n_tensors} tensors): go on with it "
                "(resume=True, --resume), or forget it (overwrite=True, --overwrite)"
            )
        else:
            self._remove_parts()
            journal.start(self._depends_on)
        there = sum(part.stat().st_size for part in self._parts if part.exists())
        missing = [path for path, placed in zip(self.paths, self._placed(), strict=True) if not placed]
        checks.targets(missing, self._n_bytes - there, self._overwrite)

    def _check_same(self, journal: Journal) -> None:
        """The earlier run must have been after the same bytes."""
        then = journal.depends_on or {}
        changed = [what for what, digest in self._depends_on.items() if then.get(what) != digest]
        if changed:
            raise QuantizeError(
                f"{self._folder} was begun with other settings: {', '.join(changed)} changed; "
                "repeat the earlier command to go on with it, or forget it (overwrite=True, --overwrite, not resuming)"
            )

    def _n_intact(self, finished: Sequence[Finished]) -> int:
        """How many of the finished tensors are on disk as they were written."""
        is_complete = len(finished) == len(self._names)
        for index, (part, path, plan) in enumerate(zip(self._parts, self.paths, self._plans, strict=True)):
            first, last = self._first[index], self._first[index + 1]
            moved = not part.exists()  # the last run died while the files got their names
            if moved and not is_complete:
                return first
            n_good = count_intact(path if moved else part, plan, finished[first:last])
            if n_good < last - first:
                return first if moved else first + n_good
        return len(finished)

    def _placed(self) -> list[bool]:
        """Which files have their name already."""
        return [
            last <= len(self.finished) and not part.exists()
            for part, last in zip(self._parts, self._first[1:], strict=True)
        ]

    # ---- writing ----

    def _open_file(self, index: int) -> PartFile:
        """The file of a tensor, open where the tensor begins."""
        shard = next(number for number, end in enumerate(self._first[1:]) if index < end)
        file = PartFile(self._parts[shard], self._plans[shard])
        if index == self._first[shard]:
            self._parts[shard].unlink(missing_ok=True)
            file.create()
        else:
            file.reopen(index - self._first[shard])
        return file

    # ---- ending ----

    def _commit(self) -> None:
        if len(self.finished) < len(self._names):
            raise ValueError(f"tensor {self._names[len(self.finished)]!r} is not complete")
        if self._hashes:
            set_hashes(self._plans[0], self._names, [tensor.sha256 for tensor in self.finished])
        moves = [
            (part, path, plan)
            for part, path, plan, placed in zip(self._parts, self.paths, self._plans, self._placed(), strict=True)
            if not placed
        ]
        for part, _, plan in moves:
            _seal(part, plan)
        checks.targets([path for _, path, _ in moves], 0, self._overwrite)
        for part, path, _ in moves:
            part.replace(path)
        sync_folder(self.path.parent)

    def _close(self, *, remove: bool) -> None:
        """Lets go of everything. What no run could go on with is removed in any case."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        if self._journal is not None:
            with suppress(OSError):
                if remove or not self._journal.finished:
                    self._remove_parts()
                    self._journal.remove()
            self._journal.close()
        with suppress(OSError):  # somebody else is at work in it
            self._folder.rmdir()

    def _remove_parts(self) -> None:
        for part in self._folder.glob("[0-9][0-9][0-9][0-9][0-9].gguf"):
            part.unlink(missing_ok=True)

    @property
    def _n_bytes(self) -> int:
        return sum(plan.file_bytes for plan in self._plans)

    def _failure(self, error: OSError) -> GGUFError | ResourceError:
        kept = f"{0 if self._journal is None else len(self.finished)} of {len(self._names)} tensors are kept"
        aftermath = f"{kept}: run it again to go on" if self._resume else "nothing was left behind"
        return disk_error(error, self.path, self._n_bytes, aftermath)


def _seal(path: Path, plan: GGUFPlan) -> None:
    """Writes the final header, and puts all bytes on disk."""
    with path.open("r+b") as file:
        file.write(plan.encode())
        file.flush()
        os.fsync(file.fileno())
