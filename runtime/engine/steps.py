"""`Steps`: how the engine is made to compute one batch of tokens, so that Ctrl-C need not wait for a long one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock, current_thread, main_thread
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.native import check, ffi, lib, pointer
from iqrun.program import Buffer, Program

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int32]
Way = Literal["auto", "decode", "prefill"]
Visit = Callable[[int, Floats, Ints | None], object]  # operation, its input, the expert of each row

_WAYS: dict[Way, int] = {"auto": lib.IQ_STEP_AUTO, "decode": lib.IQ_STEP_DECODE, "prefill": lib.IQ_STEP_PREFILL}

# A long step is run in several native calls, because Python handles Ctrl-C only between them. The pieces are ranges of
# operations, so that the numbers do not depend on how fast the machine is today.
_LONG_STEP_TOKENS = 8
_CALL_SECONDS = 0.05

_PAUSE_SECONDS = 0.001  # without a step, after which the file is looked at before the next one, too


class Batch:
    """The tokens of one step, as the engine reads them.

    Attributes:
        native: the ``iq_batch *``; valid as long as this object.
    """

    def __init__(self, tokens: Ints, seqs: Ints, wanted: npt.NDArray[np.bool_], way: Way = "auto") -> None:
        """Takes one sequence and one flag per token."""
        self._arrays = tokens.copy(), seqs.copy(), wanted.astype(np.uint8)
        self.native = ffi.new("iq_batch *")
        self.native.n_tokens = len(tokens)
        self.native.token, self.native.seq = (pointer(array, "const int32_t *") for array in self._arrays[:2])
        self.native.want = pointer(self._arrays[2], "const uint8_t *")
        self.native.way = _WAYS[way]

    def replace(self, token: int) -> None:
        """Puts another token in the first place."""
        self._arrays[0][0] = token


class Steps:
    """Runs the steps of one native context; the caller sees to it that there is one at a time.

    Attributes:
        handle: the ``iq_context *``.
    """

    def __init__(self, handle: Any, program: Program) -> None:
        self.handle = handle
        self._program = program
        self._n_op = len(program.ops)
        self._one = Batch(np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1, np.bool_))
        self._ops_per_call = 1
        self._call_seconds = 0.0
        self._checked = 0.0  # when a step of one token last found the file unchanged

    def run(self, batch: Batch, out: Floats) -> None:
        """Computes the logits of a batch, float32 ``(number of wanted tokens, n_vocab)``."""
        self._program.check_file()
        if batch.native.n_tokens < _LONG_STEP_TOKENS and self._ops_per_call >= self._n_op:
            check(lib.iq_step, self.handle, batch.native, pointer(out, "float *", writable=True))
        else:
            self._run_in_parts(batch, out)
        self._program.check_file()  # weights that changed meanwhile gave wrong numbers

    def run_one(self, token: int, out: Floats) -> None:
        """The same for one token of sequence 0, without making arrays: microseconds count here."""
        if time.perf_counter() - self._checked > _PAUSE_SECONDS:  # else the check after the last step will do
            self._program.check_file()
        self._one.replace(token)
        if self._ops_per_call >= self._n_op:
            check(lib.iq_step, self.handle, self._one.native, ffi.from_buffer("float[]", out))
        else:
            self._run_in_parts(self._one, out)
        self._program.check_file()
        self._checked = time.perf_counter()

    def trace(self, batch: Batch, ops: Sequence[int], visit: Visit) -> None:
        """Fills the KV cache and shows what goes into chosen operations on the way; computes no logits."""
        self._program.check_file()
        caching = [index for index, op in enumerate(self._program.ops) if op.kind == "attention"]
        commit = done = 0
        try:
            check(lib.iq_step_begin, self.handle, batch.native)
            for op in ops:
                check(lib.iq_step_run, self.handle, done, op)
                done = op
                visit(op, self._buffer(self._program.ops[op].src[0]).copy(), self._experts(op))
            check(lib.iq_step_run, self.handle, done, max(done, *[index + 1 for index in caching[-1:]], 0))
            self._program.check_file()
            commit = 1
        finally:
            lib.iq_step_end(self.handle, commit)

    def run_between(
        self, batch: Batch, state: Mapping[Buffer, Floats], first: int, last: int, keep: Iterable[Buffer]
    ) -> dict[Buffer, Floats]:
        """Runs operations `first` to `last` (exclusive) from the buffers of `state`; the KV cache stays as it was.

        Returns:
            The buffers to `keep`, the caller's own.
        """
        self._program.check_file()
        try:
            check(lib.iq_step_begin, self.handle, batch.native)
            for buffer, values in state.items():
                check(lib.iq_step_fill, self.handle, buffer.index, pointer(values, "const float *"))
            check(lib.iq_step_seek, self.handle, first)
            check(lib.iq_step_run, self.handle, first, last)
            self._program.check_file()
            return {buffer: self._buffer(buffer).copy() for buffer in keep}
        finally:
            lib.iq_step_end(self.handle, 0)

    def cancel(self) -> None:
        """Makes the running step, if any, fail soon."""
        lib.iq_context_cancel(self.handle)

    def profile(self, enabled: bool) -> list[float]:
        """Seconds spent in each operation since the last call; then counts anew, if `enabled`."""
        seconds = np.zeros(self._n_op, np.float64)
        lib.iq_context_profile(self.handle, pointer(seconds, "double *", writable=True))
        lib.iq_context_profile_reset(self.handle, int(enabled))
        return [float(value) for value in seconds]

    def _run_in_parts(self, batch: Batch, out: Floats) -> None:
        """As iq_step, in calls of some `_CALL_SECONDS`."""
        commit = first = 0
        try:
            check(lib.iq_step_begin, self.handle, batch.native)
            while first < self._n_op:
                last = min(first + self._ops_per_call, self._n_op)
                start = time.perf_counter()
                self._run_ops(first, last)
                self._adapt(time.perf_counter() - start)
                first = last
            if out.size:
                out[:] = self._buffer(self._program.logits).reshape(out.shape)
            commit = 1
        finally:
            lib.iq_step_end(self.handle, commit)

    def _run_ops(self, first: int, last: int) -> None:
        """Runs operations; if a single one takes long, in a helper thread, so that Ctrl-C need not wait for it."""
        if self._call_seconds < 2 * _CALL_SECONDS or current_thread() is not main_thread():
            check(lib.iq_step_run, self.handle, first, last)
            return
        running, wanted = Lock(), [True]

        def work() -> None:
            with running:
                if wanted:
                    check(lib.iq_step_run, self.handle, first, last)

        from concurrent.futures import ThreadPoolExecutor  # late: most steps are short, and never come here

        with ThreadPoolExecutor(1) as helper:
            try:
                helper.submit(work).result()
            except BaseException:  # Ctrl-C may come before `submit` returns: the work may be still to come
                wanted.clear()
                self.cancel()
                with running:
                    raise

    def _adapt(self, seconds: float) -> None:
        self._call_seconds = max(seconds, 0.9 * self._call_seconds)  # short and long operations take turns
        if seconds < 0.4 * _CALL_SECONDS:
            self._ops_per_call = min(2 * self._ops_per_call, self._n_op)
        elif seconds > 2 * _CALL_SECONDS:
            self._ops_per_call = max(self._ops_per_call // 2, 1)

    def _experts(self, op: int) -> Ints | None:
        """The expert of each row of an operation's input, ascending; None if it has none."""
        if self._program.ops[op].src[0].n_used == 0:
            return None
        route = next(other for other in reversed(self._program.ops[:op]) if other.kind == "route")
        return np.sort(self._buffer(route.dst[0]).ravel()).astype(np.int32)

    def _buffer(self, buffer: Buffer) -> Floats:
        """A buffer of the open step: a view that is valid until the next operation runs."""
        n_rows, stride = ffi.new("uint32_t *"), ffi.new("size_t *")
        data = lib.iq_context_buffer(self.handle, buffer.index, n_rows, stride)
        raw = ffi.buffer(data, 4 * n_rows[0] * stride[0])
        return np.frombuffer(raw, np.float32).reshape(n_rows[0], stride[0])[:, : buffer.n_cols]
