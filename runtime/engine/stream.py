"""`Stream`: weights that are read from their file while they are used; see stream.h for how."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Lock, RLock
from typing import Any

from iqrun.engine.lowering import NativeProgram
from iqrun.engine.residency import N_READER, N_SLOT, PIECE_BYTES, pieces_of
from iqrun.errors import ClosedError, ResourceError
from iqrun.native import check, ffi, lib

_LOAD_BYTES = 16 << 20  # between two reports


class Stream:
    """The weights of one program, on their way from the disk. Contexts that share it take turns.

    Attributes:
        turn: held by a context for the time of a step.
        n_outputs: most tokens of a step whose logits are wanted; None: any number.
    """

    def __init__(
        self,
        native_program: NativeProgram,
        pieces_resident: Sequence[bool],
        *,
        piece_bytes: int = PIECE_BYTES,
        n_slot: int = N_SLOT,
        n_reader: int = N_READER,
        context_bytes: int = 0,
        n_outputs: int | None = None,
    ) -> None:
        """Opens the files anew, past the page cache where their file system allows it, and begins to read.

        Args:
            native_program: the model, whose weights are mapped.
            pieces_resident: of each piece (`residency.pieces_of` with the same `piece_bytes`), whether it stays.
            piece_bytes: what is read at once.
            n_slot: pieces that may be in memory without being resident.
            n_reader: threads that read.
            context_bytes: what contexts may use before resident weights must make room for them.
            n_outputs: most logits in one step, on which that number counts.

        Raises:
            GGUFError: a file is not the one that was opened before.
            MemoryError: there is not enough memory.
            ResourceError: no thread can be started.
            UnsupportedModelError: this system has no streams, or the model has too wide a matrix for them.
        """
        self.turn, self.n_outputs = Lock(), n_outputs
        self._account = RLock()  # over these: a context may be collected anywhere
        self._free, self._reserved = context_bytes, 0
        program = native_program.program
        descriptors, paths = program.reopen()
        names = [ffi.new("char[]", os.fsencode(path)) for path in paths]
        try:
            files = ffi.new("iq_stream_file[]", list(zip(descriptors, names, strict=True)))
            sources = ffi.new("iq_stream_source[]", [program.source(weight) for weight in program.weights])
            resident = ffi.new("uint8_t[]", [int(stays) for stays in pieces_resident])
            spec = ffi.new("iq_stream_spec *", [files, sources, resident, piece_bytes, len(files), n_slot, n_reader])
            out = ffi.new("iq_stream **")
            check(lib.iq_stream_create, native_program.handle, spec, out)
        except BaseException:
            _close_all(descriptors)
            raise

        def free(stream: Any, keep: Any = (native_program.handle, names)) -> None:
            lib.iq_stream_free(stream)
            _close_all(descriptors)

        self.handle: Any = ffi.gc(out[0], free)
        pieces = zip(pieces_of(native_program, piece_bytes), pieces_resident, strict=True)
        self._resident = sum(piece.bytes for piece, stays in pieces if stays)

    @property
    def bytes_read(self) -> int:
        """Bytes that came from the files so far."""
        n_bytes: int = lib.iq_stream_bytes_read(self.handle)
        return n_bytes

    def load(self, on_progress: Callable[[int, int], object]) -> None:
        """Reads what shall be resident.

        Args:
            on_progress: called as ``on_progress(done, total)``, in bytes; what it raises ends the reading.
        """
        left = ffi.new("uint64_t *")
        total = 0
        with self.turn:
            check(lib.iq_stream_load, self.handle, 0, left)
            total = left[0]
            on_progress(0, total)
            while left[0]:
                check(lib.iq_stream_load, self.handle, _LOAD_BYTES, left)
                on_progress(total - left[0], total)

    def reserve(self, n_bytes: int) -> None:
        """Promises memory to a context, which will `use` it.

        Raises:
            ResourceError: there is not so much, even if no weights stay in memory.
        """
        with self._account:
            if self._reserved + n_bytes > self._free + self._resident:
                raise ResourceError(
                    f"the memory limit has no room for another context of {n_bytes / 1e6:.0f} MB: close a session, or "
                    "load the model with more memory or a smaller n_ctx"
                )
            self._reserved += n_bytes

    def use(self, n_bytes: int) -> None:
        """Counts memory that was promised; where none is free, fewer weights stay from now on. `turn` is held.

        Raises:
            ClosedError: the stream was closed meanwhile.
        """
        with self._account:
            if n_bytes > self._free:
                freed = ffi.new("uint64_t *")
                check(lib.iq_stream_shrink, self._opened(), n_bytes - self._free, freed)
                self._free += freed[0]
                self._resident -= freed[0]
            self._free -= n_bytes
            self._reserved -= n_bytes

    def attach(self, context: Any) -> None:
        """Lets a native context take its weights from here.

        Raises:
            ClosedError: the stream was closed meanwhile.
        """
        with self._account:
            check(lib.iq_context_use_stream, context, self._opened())

    def give(self, n_used: int, n_reserved: int) -> None:
        """Notes that a context is gone, which used so much of what was promised, and not the rest."""
        with self._account:
            self._free += n_used
            self._reserved -= n_reserved

    def close(self) -> None:
        """Stops the reading and frees the memory, when no context uses it any more; safe to call twice."""
        with self._account:
            handle, self.handle = self.handle, None
        if handle is not None:
            ffi.release(handle)

    def _opened(self) -> Any:
        if self.handle is None:
            raise ClosedError("this model is closed; load it again")
        return self.handle


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
