"""Which weights stay in memory when not all of them fit, and what that takes: the account of a memory limit.

A step uses all weights, in the same order every time. Whichever pieces of them stay in memory, the bytes that must be
read for each token are as many, so the only question is when: the resident pieces are spread evenly among the streamed
ones, and the disk reads the next streamed piece while resident ones are multiplied. A token uses few of the experts:
their pieces are the last to stay.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iqrun import machine
from iqrun.engine.allocation import context_bytes, used_bytes
from iqrun.engine.lowering import NativeProgram
from iqrun.errors import ResourceError
from iqrun.native import ffi, lib

PIECE_BYTES = 2 << 20  # large enough that a disk reads at its full speed
N_SLOT = 5  # pieces that are read ahead
N_READER = 4  # a disk needs several reads at once to show its speed
_GROWTH_BYTES = 12_000_000  # what a process takes after loading: imports, texts, page tables
_FREE_SHARE = 0.85  # of the memory that is free: other programs grow, too
_BATCHES = (128, 64, 32, 16)  # tokens in one step; a prompt is read in few steps, and their buffers take memory
_BATCH_SHARE = 8  # at most this part of the limit for them
_OUTPUT_BYTES = 4_000_000  # logits in one step
_MIN_OUTPUTS = 8


@dataclass(frozen=True)
class MemoryPlan:
    """What is where when a model runs within a memory limit. All numbers but the counts are bytes.

    Attributes:
        limit: what the process may use in all.
        process: used before the model runs, and kept for what Python will add.
        context: one context when it is full: KV cache and buffers.
        begun: what it uses of that at first.
        read_ahead: weights in memory for a moment.
        resident: weights that stay in memory at first; they make room for a context that fills up.
        streamed: weights read from the disk for each generated token at first; of experts, on average.
        n_batch: most tokens in one step.
        n_outputs: most tokens in one step whose logits are wanted.
        pieces_resident: of each piece of the weights, in the order of a step, whether it is resident.
    """

    limit: int
    process: int
    context: int
    begun: int
    read_ahead: int
    resident: int
    streamed: int
    n_batch: int
    n_outputs: int
    pieces_resident: tuple[bool, ...]

    @property
    def free(self) -> int:
        """What the account leaves."""
        return self.limit - self.process - self.begun - self.read_ahead - self.resident

    @property
    def streamed_when_full(self) -> int:
        """As `streamed`, when the context is full."""
        return self.streamed + min(self.resident, max(0, self.context - self.begun - self.free))

    @property
    def _later(self) -> str:
        later = self.streamed_when_full
        return "" if later < 1.1 * self.streamed else f" ({_mb(later)} when the context is full)"

    def __str__(self) -> str:
        return (
            f"runs within {_mb(self.limit)} of memory: {_mb(self.resident)} of its weights stay there, "
            f"{_mb(self.streamed)} are read from the disk for each token{self._later}"
        )


def memory_limit(file_bytes: int, context_bytes: int, wanted: int | None, free: int | None = None) -> int | None:
    """The limit within which a model must run, or None if all of it fits, which is then left to the page cache.

    Args:
        file_bytes: size of the model's files.
        context_bytes: size of its context.
        wanted: the limit asked for; None takes the memory that is free, if that is too little for the file.
        free: bytes that are free; by default what the machine says.

    Raises:
        ValueError: the limit is no number of bytes.
    """
    process = process_bytes()
    if wanted is not None:
        wanted = _checked(wanted)
        return None if file_bytes + context_bytes + process <= wanted else wanted
    free = machine.available_memory() if free is None else free
    if free is None or not sys.platform.startswith("linux") or context_bytes > free:
        return None
    return None if file_bytes + context_bytes + _GROWTH_BYTES <= free else process + int(_FREE_SHARE * free)


def process_bytes() -> int:
    """What a process that runs a model uses besides weights and context."""
    return (machine.process_memory() or 0) + _GROWTH_BYTES


def context_account(native_program: NativeProgram, params: Any, wanted: int | None) -> int:
    """Bytes of a context as `memory_limit` counts them.

    Rows of logits are reserved for a whole batch, but a chat writes one of them. Only a limit that was asked for must
    hold whatever is done with the model.
    """
    return context_bytes(native_program, params, n_outputs=1 if wanted is None else None)


def plan_memory(
    native_program: NativeProgram, limit: int, params: Any, *, process_bytes: int | None = None
) -> MemoryPlan:
    """Chooses the resident weights of a program.

    Args:
        native_program: the model.
        limit: bytes that the process may use.
        params: ``iq_context_params`` of its context, of which `n_batch` may be made smaller.
        process_bytes: used by the process already; by default what this process uses now.

    Raises:
        ResourceError: the model cannot run within the limit; the message says within which one it can.
        ValueError: the limit is no number of bytes.
    """
    limit = _checked(limit)
    if process_bytes is None:
        process_bytes = machine.process_memory() or 0
    pieces = [(int(piece.bytes), float(piece.share)) for piece in pieces_of(native_program)]
    process, read_ahead = process_bytes + _GROWTH_BYTES, N_SLOT * max((size for size, _ in pieces), default=0)
    n_outputs = max(_MIN_OUTPUTS, _OUTPUT_BYTES // (4 * native_program.program.logits.n_cols))
    context = _choose_batch(native_program, params, n_outputs, limit, limit - process - read_ahead)
    room = limit - process - context - read_ahead
    if room < 0:
        raise ResourceError(
            f"{native_program.program.path}: {_mb(limit)} of memory are too little, {_mb(limit - room)} would do: "
            f"{_mb(context)} for a context of {params.n_ctx} tokens, {_mb(read_ahead)} to read ahead, {_mb(process)} "
            "for the program itself; a smaller context needs less"
        )
    begun = used_bytes(native_program, params, n_outputs, 1, 1)
    resident = choose_resident(pieces, room + context - begun)
    kept = sum(size for (size, _), stays in zip(pieces, resident, strict=True) if stays)
    read = sum(size * share for (size, share), stays in zip(pieces, resident, strict=True) if not stays)
    return MemoryPlan(
        limit=limit,
        process=process,
        context=context,
        begun=begun,
        read_ahead=read_ahead,
        resident=kept,
        streamed=round(read),
        n_batch=params.n_batch,
        n_outputs=n_outputs,
        pieces_resident=tuple(resident),
    )


def choose_resident(pieces: Sequence[tuple[int, float]], room: int) -> list[bool]:
    """Which pieces to keep in `room` bytes.

    Args:
        pieces: size of each, and share of the tokens that use it, in the order of a step.
        room: bytes.

    Returns:
        Whether each stays. Those that more tokens use come first; among equal ones they are spread evenly.
    """
    chosen = [False] * len(pieces)
    for share in sorted({share for _, share in pieces}, reverse=True):
        alike = [index for index, piece in enumerate(pieces) if piece[1] == share]
        total, seen, used = sum(pieces[index][0] for index in alike), 0, 0
        most = min(room, total)
        for index in alike:
            size = pieces[index][0]
            seen += size
            chosen[index] = (used + size) * total <= most * seen
            used += size if chosen[index] else 0
        room -= used
    return chosen


def pieces_of(native_program: NativeProgram, piece_bytes: int = PIECE_BYTES) -> Any:
    """The ``iq_piece`` array of a program, in the order of a step."""
    n_piece = lib.iq_stream_pieces(native_program.handle, piece_bytes, ffi.NULL, 0)
    pieces = ffi.new("iq_piece[]", n_piece)
    lib.iq_stream_pieces(native_program.handle, piece_bytes, pieces, n_piece)
    return pieces


def _choose_batch(native_program: NativeProgram, params: Any, n_outputs: int, limit: int, room: int) -> int:
    """Sets `n_batch` to the largest one whose buffers are a small part of the limit and fit; bytes of the context."""
    wanted: int = params.n_batch
    choices = [n for n in _BATCHES if n <= wanted] or [wanted]
    params.n_batch = 1
    alone = context_bytes(native_program, params, n_outputs)
    for params.n_batch in choices:
        size = context_bytes(native_program, params, n_outputs)
        if size <= room and size - alone <= limit // _BATCH_SHARE:
            break
    return size


def _checked(n_bytes: float) -> int:
    if not 1 <= n_bytes < 1 << 63:  # refuses NaN, too
        raise ValueError(f"memory is {n_bytes}, but must be a number of bytes from 1 to 2^63 - 1")
    return int(n_bytes)


def _mb(n_bytes: int) -> str:
    """As people write it: rounded up, so that what is named as enough is enough."""
    return f"{-(-n_bytes // 1_000_000)} MB"
