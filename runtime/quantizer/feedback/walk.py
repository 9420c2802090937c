"""A text's way through a program, stopped at chosen operations, all chunks together.

At a stop, what the rest of the program will read lies in arrays (the *state*: the residual stream and a few more), one
set per chunk. So the next part can run with other weights, and every operation runs once per chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from iqrun.engine.lowering import NativeProgram
from iqrun.errors import ResourceError
from iqrun.native import check, ffi, lib, pointer
from iqrun.program import Buffer, Op, Program

Floats = npt.NDArray[np.float32]
State = dict[Buffer, Floats]

_KV_TYPE = 1  # F16


def live_buffers(program: Program) -> list[set[Buffer]]:
    """For each operation, and for the end: the buffers that are read from there on before they are written anew."""
    live: list[set[Buffer]] = [set()]
    for op in reversed(program.ops):
        live.append((live[-1] - set(op.dst)) | _reads(op))
    return live[::-1]


def _reads(op: Op) -> set[Buffer]:
    in_place = op.add or op.kind in ("rope", "add")
    return {*op.src, *(op.dst if in_place else ())}


class Walk:
    """Chunks of a text on their way through a model.

    Attributes:
        op: the operation that is next.
    """

    def __init__(self, program: Program, chunks: Sequence[npt.NDArray[np.integer[Any]]], n_threads: int) -> None:
        """Stands before the first operation.

        Args:
            program: the model.
            chunks: token ids, ``(n_tokens,)`` each.
            n_threads: threads to compute with.
        """
        self.op = 0
        self._chunks = [np.ascontiguousarray(chunk, np.int32) for chunk in chunks]
        self._n_threads = n_threads
        self._live = live_buffers(program)
        self._states: list[State] = [{} for _ in chunks]

    def states(self) -> Iterator[State]:
        """Each chunk's state, float32 ``(n_tokens, n_cols)`` per buffer."""
        return iter(self._states)

    def advance(self, native: NativeProgram, op: int) -> None:
        """Runs up to an operation.

        Args:
            native: the model, with any weights.
            op: index of the next operation then.

        Raises:
            ResourceError: there is not enough memory.
        """
        if op == self.op:
            return
        with _context(native, max(len(chunk) for chunk in self._chunks), self._n_threads) as context:
            for index, chunk in enumerate(self._chunks):
                self._states[index] = self._run(context, chunk, self._states[index], op)
        self.op = op

    def _run(self, context: Any, chunk: npt.NDArray[np.int32], state: State, op: int) -> State:
        batch, _keep = _batch(chunk)
        try:
            check(lib.iq_step_begin, context, batch)
            for buffer, values in state.items():
                check(lib.iq_step_fill, context, buffer.index, pointer(values, "const float *"))
            check(lib.iq_step_seek, context, self.op)
            check(lib.iq_step_run, context, self.op, op)
            return {buffer: _read(context, buffer, len(chunk)) for buffer in self._live[op]}
        finally:
            lib.iq_step_end(context, 0)


def _read(context: Any, buffer: Buffer, n_rows: int) -> Floats:
    data = lib.iq_context_buffer(context, buffer.index, ffi.NULL)
    raw = ffi.buffer(data, 4 * n_rows * buffer.n_cols)
    values: Floats = np.frombuffer(raw, np.float32).reshape(n_rows, buffer.n_cols).copy()
    return values


def _batch(chunk: npt.NDArray[np.int32]) -> tuple[Any, list[Any]]:
    """An ``iq_batch`` of sequence 0 that wants every output, and the arrays that it points to."""
    seq, want = np.zeros(len(chunk), np.int32), np.ones(len(chunk), np.uint8)
    batch = ffi.new("iq_batch *")
    batch.n_tokens = len(chunk)
    batch.token, batch.seq = pointer(chunk, "const int32_t *"), pointer(seq, "const int32_t *")
    batch.want = pointer(want, "const uint8_t *")
    return batch, [chunk, seq, want]


@contextmanager
def _context(native: NativeProgram, n_tokens: int, n_threads: int) -> Iterator[Any]:
    params = ffi.new("iq_context_params *")
    params.n_ctx, params.n_batch, params.n_seq = n_tokens, n_tokens, 1
    params.n_threads, params.kv_type = n_threads, _KV_TYPE
    out = ffi.new("iq_context **")
    try:
        check(lib.iq_context_create, native.handle, params, out)
    except MemoryError as error:
        raise ResourceError(str(error)) from error
    try:
        yield out[0]
    finally:
        lib.iq_context_free(out[0])
