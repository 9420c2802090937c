"""A text's way through a program, stopped at chosen operations, all chunks together.

At a stop, what the rest of the program will read lies in arrays (the *state*: the residual stream and a few more), one
set per chunk. So the next part can run with other weights, and every operation runs once per chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from iqrun.engine.allocation import context_params, create_context
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.steps import Batch, Steps
from iqrun.native import ffi
from iqrun.program import Buffer, Op, Program

Floats = npt.NDArray[np.float32]
State = dict[Buffer, Floats]


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
        n_tokens = max(len(chunk) for chunk in self._chunks)
        handle = create_context(native, context_params(n_tokens, self._n_threads, "f16", n_tokens, n_seq=1))
        try:
            steps = Steps(handle, native.program)
            for index, chunk in enumerate(self._chunks):
                batch = Batch(chunk, np.zeros_like(chunk), np.ones(len(chunk), np.bool_))
                self._states[index] = steps.run_between(batch, self._states[index], self.op, op, self._live[op])
        finally:
            ffi.release(handle)
        self.op = op
