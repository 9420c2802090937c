"""`GGUFFile`: a GGUF model file, or the files of a split one, mapped and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike, fsdecode
from types import MappingProxyType, TracebackType

from iqrun.errors import ClosedError, GGUFError
from iqrun.gguf.header import Header, TensorInfo, parse_header
from iqrun.gguf.mapping import MappedFile
from iqrun.gguf.metadata import Bytes, Metadata
from iqrun.gguf.split import check_shard, check_tensor_count, shard_paths


class GGUFFile:
    """A GGUF file, mapped and checked: metadata, tensor descriptions and the tensors' bytes.

    Opening any shard of a split model opens all of them as one. Nothing is copied; strings and arrays are decoded
    when they are asked for. Use it as a context manager, or call `close`.

    After `close` the object raises `ClosedError`. Arrays taken from it before stay valid: they keep the memory map
    alive until the last of them is gone. What happens when another program writes into a file that is open is told by
    `check_unchanged` and `guard_mapped_files`; replacing a file by renaming is always safe.

    Example:
        >>> with GGUFFile("model.gguf") as file:
        ...     print(file.metadata.get_str("general.architecture"), len(file.tensors))
    """

    def __init__(self, path: str | PathLike[str], *, copy: bool = False) -> None:
        """Opens and checks the file.

        Args:
            path: the file, or any file of a split model.
            copy: read everything into memory instead of mapping it: slower to open, and nothing that happens to the
                file afterwards matters.

        Raises:
            GGUFError: the file cannot be read, or anything in its header is wrong.
        """
        self._files: list[MappedFile] = []
        self._headers: list[Header] = []
        self._closed = False
        self._copy = copy
        try:
            self._open_all(fsdecode(path))
        except BaseException:
            self.close()
            raise

    def _open_all(self, path: str) -> None:
        self._open(path, 0)
        paths = shard_paths(path, self._headers[0])
        if len(paths) > 1:
            self._let_go()
            for index, shard in enumerate(paths):
                self._open(shard, index)
                check_shard(shard, self._headers[index], index, len(paths))
        self._tensors = _merge(self._headers, paths)
        check_tensor_count(paths[0], self._headers[0], len(self._tensors))
        self.check_unchanged()  # what was read is what was there when it was opened

    def _open(self, path: str, index: int) -> None:
        self._files.append(MappedFile(path, copy=self._copy))
        self._headers.append(parse_header(self._files[-1].data, path, index))

    def __enter__(self) -> GGUFFile:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return "<GGUFFile: closed>" if self._closed else f"<GGUFFile {self.path}: {len(self._tensors)} tensors>"

    def close(self) -> None:
        """Lets go of the file; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        self._headers.clear()  # they refer to the maps
        for file in self._files:
            file.close()
        self._files.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this GGUFFile is closed; open the file again")

    def check_unchanged(self) -> None:
        """Makes sure that no other program wrote to the files since they were opened.

        Raises:
            ClosedError: this object was closed.
            GGUFError: a file was shortened or rewritten.
        """
        self._check_open()
        for file in self._files:
            file.check_unchanged()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def paths(self) -> tuple[str, ...]:
        """The path of each file, in the order of `TensorInfo.file_index`."""
        self._check_open()
        return tuple(file.path for file in self._files)

    @property
    def path(self) -> str:
        """The path of the (first) file."""
        return self.paths[0]

    @property
    def file_bytes(self) -> int:
        """Size of all files together."""
        self._check_open()
        return sum(len(file.data) for file in self._files)

    @property
    def version(self) -> int:
        """GGUF version, 2 or 3."""
        self._check_open()
        return self._headers[0].version

    @property
    def alignment(self) -> int:
        """Tensor data begins at multiples of this."""
        self._check_open()
        return self._headers[0].alignment

    @property
    def metadata(self) -> Metadata:
        """Key/value pairs of the (first) file, with typed getters."""
        self._check_open()
        return self._headers[0].metadata

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Tensor descriptions by name, in file order."""
        self._check_open()
        return self._tensors

    def tensor(self, name: str) -> TensorInfo:
        """The description of a tensor.

        Raises:
            GGUFError: there is no such tensor.
        """
        info = self.tensors.get(name)
        if info is None:
            raise GGUFError(f"there is no tensor {name!r}", path=self.path, key=name)
        return info

    def tensor_bytes(self, name: str) -> Bytes:
        """The stored bytes of a tensor: a read-only uint8 view of the map, shape ``(n_bytes,)``."""
        info = self.tensor(name)
        return self._files[info.file_index].data[info.offset : info.offset + info.n_bytes]

    def tensor_rows(self, name: str) -> Bytes:
        """The stored bytes of a tensor row by row: a read-only uint8 view of the map, ``(n_rows, row_bytes)``."""
        info = self.tensor(name)
        return self.tensor_bytes(name).reshape(info.n_rows, info.row_bytes)

    def reopen(self) -> list[int]:
        """A descriptor of each file, whose reads go past the page cache where the file system allows it.

        The caller closes them. They are for reading weights in an order of one's own; see `TensorInfo.offset`.

        Raises:
            ClosedError: this object was closed.
            GGUFError: a file cannot be opened again, or was replaced.
        """
        self._check_open()
        descriptors: list[int] = []
        try:
            descriptors.extend(file.reopen() for file in self._files)
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        return descriptors

    def forget(self) -> None:
        """Takes what was read of the maps so far out of memory; it stays readable, page by page."""
        self._check_open()
        for file in self._files:
            file.forget()

    def release_rows(self, name: str, first: int, last: int) -> None:
        """Takes rows ``first`` to ``last`` (exclusive) of a tensor out of this process's memory.

        For one pass over a model that is larger than memory; the rows stay readable.
        """
        info = self.tensor(name)
        start = info.offset + first * info.row_bytes
        self._files[info.file_index].release(start, start + (last - first) * info.row_bytes)


def _merge(headers: list[Header], paths: list[str]) -> Mapping[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for header, path in zip(headers, paths, strict=True):
        for name, info in header.tensors.items():
            if name in tensors:
                raise GGUFError(f"tensor {name!r} is also in another shard", path=path, key=name)
            tensors[name] = info
    return MappingProxyType(tensors)
