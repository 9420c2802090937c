"""`Session`: one sequence of tokens and its KV cache inside the native engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, current_thread, main_thread
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun import formats, machine
from iqrun.errors import CancelledError, ClosedError, ContextFullError, ResourceError
from iqrun.lowering import NativeProgram
from iqrun.native import check, ffi, lib, pointer
from iqrun.program import Buffer, Program

Floats: TypeAlias = npt.NDArray[np.float32]
Want: TypeAlias = Literal["last", "all"] | npt.NDArray[np.bool_]
KVType = Literal["f16", "f32"]

N_BATCH = 512
_SEQ = 0
_INVALID = 1 << 63  # iq_context_bytes of what iq_context_create refuses, with a better explanation than ours

# A long step is run in several native calls, because Python handles Ctrl-C only between them. The pieces are ranges of
# operations, so that the numbers do not depend on how fast the machine is today.
_LONG_STEP_TOKENS = 8
_CALL_SECONDS = 0.05


class Session:
    """A sequence of tokens, with the KV cache and the threads to extend it.

    May be used by several threads: one call runs at a time, the others wait. Not usable after a fork.

    Example:
        >>> session = model.session()
        >>> logits = session.evaluate(model.tokenizer.encode("Once upon a time"))
        >>> session.evaluate([int(logits.argmax())])

    Attributes:
        n_ctx: tokens that fit.
        n_threads: threads that compute.
    """

    def __init__(
        self,
        native_program: NativeProgram,
        *,
        n_ctx: int,
        n_threads: int,
        kv_type: KVType = "f16",
        n_batch: int = N_BATCH,
    ) -> None:
        """Allocates the KV cache and starts the threads.

        Args:
            native_program: the model.
            n_ctx: tokens that the KV cache shall hold.
            n_threads: 1 computes in the calling thread alone.
            kv_type: type of cached keys and values.
            n_batch: most tokens in one step of the engine.

        Raises:
            ResourceError: there is not enough memory; the message says what would fit.
            ValueError: an argument is out of range.
        """
        _check_arguments(n_ctx, n_threads, kv_type, n_batch)
        self._native_program: NativeProgram | None = native_program
        self._n_ids, self._logits = native_program.program.n_vocab, native_program.program.logits
        self.n_ctx, self.n_threads, self._n_batch = n_ctx, n_threads, min(n_batch, n_ctx)
        self._params = _params(n_ctx, self._n_batch, n_threads, kv_type)
        _check_memory(native_program, self._params)
        self._context = _create(native_program, self._params)
        self._tokens: list[int] = []
        self._one, self._one_arrays = _batch(np.zeros(1, np.int32), np.ones(1, np.uint8))
        self._lock = Lock()  # held while the context computes
        self._cancel_lock = Lock()  # held while the context is cancelled or taken away
        self._cancelled = self._closing = False
        self._pid = os.getpid()
        self._n_op = len(native_program.program.ops)
        self._ops_per_call = 1
        self._call_seconds = 0.0

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens evaluated so far."""
        return tuple(self._tokens)

    def recent(self, n: int) -> list[int]:
        """The last `n` tokens evaluated, or all if there are fewer."""
        return self._tokens[-n:] if n > 0 else []

    @property
    def n_vocab(self) -> int:
        """Number of logits per token."""
        return self._logits.n_cols

    def __len__(self) -> int:
        return len(self._tokens)

    def evaluate(self, ids: Sequence[int] | npt.NDArray[np.integer[Any]], want: Want = "last") -> Floats:
        """Appends tokens and computes logits.

        Args:
            ids: at least one token id.
            want: whose logits to return: those of the ``"last"`` token, of ``"all"``, or of those that a bool array
                with one entry per token marks.

        Returns:
            float32, ``(n_vocab,)`` for ``"last"``, else ``(number of wanted tokens, n_vocab)``.

        Raises:
            ContextFullError: the tokens do not fit; the session is unchanged.
            CancelledError: `cancel` was called; the session is unchanged.
            ClosedError: the session was closed, or the process forked.
            ValueError: no tokens, or an id outside the vocabulary; the session is unchanged.
        """
        if len(ids) == 1 and isinstance(want, str) and want == "last" and self._ops_per_call >= self._n_op:
            return self._evaluate_one(ids[0])
        tokens = self._checked_ids(ids)
        wanted = _wanted(len(tokens), want)
        with self._lock:
            self._check_usable()
            self._check_room(len(tokens))
            out = np.empty((int(wanted.sum()), self.n_vocab), np.float32)
            n_past = len(self._tokens)
            self._cancelled = False
            try:
                self._evaluate_batches(tokens, wanted, out)
            except BaseException:
                self._truncate(n_past)
                raise
        return out[0] if isinstance(want, str) and want == "last" else out

    def trace(
        self,
        ids: Sequence[int] | npt.NDArray[np.integer[Any]],
        ops: Sequence[int],
        visit: Callable[[int, Floats], object],
    ) -> None:
        """Appends tokens and shows what goes into chosen operations on the way; computes no logits.

        Args:
            ids: at least one token id.
            ops: indices of operations of the program, ascending.
            visit: called as ``visit(op, x)`` just before each of them; `x` is the operation's first input, float32
                ``(n_tokens of the step, n_cols)``, the caller's own.

        Raises:
            ContextFullError, CancelledError, ClosedError, ValueError: as `evaluate`; the session is unchanged.
        """
        tokens = self._checked_ids(ids)
        with self._lock:
            self._check_usable()
            self._check_room(len(tokens))
            n_past = len(self._tokens)
            self._cancelled = False
            try:
                for first in range(0, len(tokens), self._n_batch):
                    if self._cancelled:
                        raise CancelledError("the evaluation was cancelled")
                    piece = tokens[first : first + self._n_batch]
                    self._trace_step(piece, ops, visit)
                    self._tokens += piece.tolist()
            except BaseException:
                self._truncate(n_past)
                raise

    def truncate(self, length: int) -> None:
        """Keeps only the first `length` tokens.

        Raises:
            ClosedError: the session was closed, or the process forked.
            ValueError: `length` is negative or more than there are.
        """
        with self._lock:
            self._check_usable()
            if not 0 <= length <= len(self._tokens):
                raise ValueError(f"cannot truncate {len(self._tokens)} tokens to {length}")
            self._truncate(length)

    def cancel(self) -> None:
        """Makes an evaluation that runs in another thread stop soon, with `CancelledError`."""
        with self._cancel_lock:
            self._cancelled = True
            if self._context is not None:
                lib.iq_context_cancel(self._context)

    def profile(self, enabled: bool = True) -> list[float]:
        """Seconds spent in each operation of the program since the last call; then counts anew, if `enabled`."""
        with self._lock:
            self._check_usable()
            seconds = np.zeros(self._n_op, np.float64)
            lib.iq_context_profile(self._context, pointer(seconds, "double *", writable=True))
            lib.iq_context_profile_reset(self._context, int(enabled))
        return [float(value) for value in seconds]

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops what runs and frees the memory; safe to call twice."""
        if self._pid != os.getpid():
            self._context = None  # the child has a copy of the memory, but no threads to stop
            return
        self._closing = True  # whoever waits for the lock shall not begin
        self.cancel()
        with self._lock, self._cancel_lock:
            context, self._context, self._native_program = self._context, None, None
            if context is not None:
                ffi.release(context)

    # ---- inside ----

    @property
    def _program(self) -> Program:
        """What runs here. A closed session has forgotten it: it refers to the weights, and so to the file's map."""
        if self._native_program is None:
            raise ClosedError("this session is closed")
        return self._native_program.program

    def _check_usable(self) -> None:
        if self._context is None or self._closing:
            raise ClosedError("this session is closed: its model was closed, or close() was called")
        if self._pid != os.getpid():
            raise ClosedError("a model loaded before a fork cannot run in the child process: load it there")

    def _checked_ids(self, ids: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
        array = np.asarray(ids)
        if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
            raise ValueError("the token ids must be a flat list of at least one integer")
        bad = array[(array < 0) | (array >= self._n_ids)]
        if bad.size:
            raise ValueError(f"token id {bad[0]} is not in the vocabulary of {self._n_ids} tokens")
        return np.ascontiguousarray(array, dtype=np.int32)

    def _check_room(self, n_tokens: int) -> None:
        if len(self._tokens) + n_tokens > self.n_ctx:
            raise ContextFullError(
                f"{len(self._tokens)} + {n_tokens} tokens do not fit in a context of {self.n_ctx}: "
                "shorten the text or load the model with a larger n_ctx"
            )

    def _truncate(self, length: int) -> None:
        check(lib.iq_seq_truncate, self._context, _SEQ, length)
        del self._tokens[length:]

    def _evaluate_one(self, token: int) -> Floats:
        """The step of the decode loop, without the arrays that a batch needs: microseconds count here."""
        if not isinstance(token, (int, np.integer)) or not 0 <= token < self._n_ids:
            self._checked_ids([token])  # raises
        out = np.empty(self.n_vocab, np.float32)
        with self._lock:
            self._check_usable()
            self._check_room(1)
            self._one.token[0] = token
            check(lib.iq_step, self._context, self._one, ffi.cast("float *", ffi.from_buffer(out)))
            self._tokens.append(int(token))
        return out

    def _evaluate_batches(self, tokens: npt.NDArray[np.int32], wanted: npt.NDArray[np.bool_], out: Floats) -> None:
        filled = 0
        for first in range(0, len(tokens), self._n_batch):
            piece, flags = tokens[first : first + self._n_batch], wanted[first : first + self._n_batch]
            n_out = int(flags.sum())
            if self._cancelled:
                raise CancelledError("the evaluation was cancelled")
            self._step(piece, flags, out[filled : filled + n_out])
            self._tokens += piece.tolist()
            filled += n_out

    def _step(self, tokens: npt.NDArray[np.int32], wanted: npt.NDArray[np.bool_], out: Floats) -> None:
        batch, _arrays = _batch(tokens.copy(), wanted.astype(np.uint8))
        if len(tokens) < _LONG_STEP_TOKENS and self._ops_per_call >= self._n_op:
            check(lib.iq_step, self._context, batch, pointer(out, "float *", writable=True))
        else:
            self._step_in_parts(batch, out)

    def _step_in_parts(self, batch: Any, out: Floats) -> None:
        """As iq_step, in calls of some `_CALL_SECONDS`."""
        commit = first = 0
        try:
            check(lib.iq_step_begin, self._context, batch)
            while first < self._n_op:
                last = min(first + self._ops_per_call, self._n_op)
                start = time.perf_counter()
                self._run(first, last)
                self._adapt(time.perf_counter() - start)
                first = last
            self._read_logits(out)
            commit = 1
        finally:
            lib.iq_step_end(self._context, commit)

    def _run(self, first: int, last: int) -> None:
        """Runs operations; if a single one takes long, in a helper thread, so that Ctrl-C need not wait for it."""
        if self._call_seconds < 2 * _CALL_SECONDS or current_thread() is not main_thread():
            check(lib.iq_step_run, self._context, first, last)
            return
        with ThreadPoolExecutor(1) as helper:
            done = helper.submit(check, lib.iq_step_run, self._context, first, last)
            try:
                done.result()
            except BaseException:
                lib.iq_context_cancel(self._context)
                raise

    def _adapt(self, seconds: float) -> None:
        self._call_seconds = max(seconds, 0.9 * self._call_seconds)  # short and long operations take turns
        if seconds < 0.4 * _CALL_SECONDS:
            self._ops_per_call = min(2 * self._ops_per_call, self._n_op)
        elif seconds > 2 * _CALL_SECONDS:
            self._ops_per_call = max(self._ops_per_call // 2, 1)

    def _read_logits(self, out: Floats) -> None:
        if out.size:
            out[:] = self._buffer(self._logits)

    def _buffer(self, buffer: Buffer) -> Floats:
        """A buffer of the open step: a view that is valid until the next operation runs."""
        n_rows = ffi.new("uint32_t *")
        data = lib.iq_context_buffer(self._context, buffer.index, n_rows)
        raw = ffi.buffer(data, 4 * n_rows[0] * buffer.n_cols)
        return np.frombuffer(raw, np.float32).reshape(n_rows[0], buffer.n_cols)

    def _trace_step(
        self, tokens: npt.NDArray[np.int32], ops: Sequence[int], visit: Callable[[int, Floats], object]
    ) -> None:
        batch, _arrays = _batch(tokens.copy(), np.ones(len(tokens), np.uint8))
        caching = [index for index, op in enumerate(self._program.ops) if op.kind == "attention"]
        commit = done = 0
        try:
            check(lib.iq_step_begin, self._context, batch)
            for op in ops:
                check(lib.iq_step_run, self._context, done, op)
                done = op
                visit(op, self._buffer(self._program.ops[op].src[0]).copy())
            check(lib.iq_step_run, self._context, done, max(done, *[index + 1 for index in caching[-1:]], 0))
            commit = 1
        finally:
            lib.iq_step_end(self._context, commit)


def _batch(tokens: npt.NDArray[np.int32], want: npt.NDArray[np.uint8]) -> tuple[Any, list[Any]]:
    """An ``iq_batch`` of sequence 0, and the arrays that it points to."""
    seq = np.full(len(tokens), _SEQ, np.int32)
    batch = ffi.new("iq_batch *")
    batch.n_tokens = len(tokens)
    batch.token = pointer(tokens, "int32_t *", writable=True)
    batch.seq, batch.want = pointer(seq, "const int32_t *"), pointer(want, "const uint8_t *")
    return batch, [tokens, seq, want]


def _wanted(n_tokens: int, want: Want) -> npt.NDArray[np.bool_]:
    """`want` as one flag per token."""
    if isinstance(want, np.ndarray):
        if want.shape != (n_tokens,) or want.dtype != np.bool_:
            raise ValueError(f"want must be bool with {n_tokens} entries, one per token")
        return want
    if want not in ("last", "all"):
        raise ValueError(f"want is {want!r}, but must be 'last', 'all' or a bool array")
    wanted = np.full(n_tokens, want == "all")
    wanted[-1] = True
    return wanted


def _check_arguments(n_ctx: int, n_threads: int, kv_type: str, n_batch: int) -> None:
    for name, value, high in (("n_ctx", n_ctx, 1 << 30), ("n_threads", n_threads, 512), ("n_batch", n_batch, 1 << 16)):
        if not 1 <= value <= high:
            raise ValueError(f"{name} is {value}, but must be from 1 to {high}")
    if kv_type not in ("f16", "f32"):
        raise ValueError(f"kv_type is {kv_type!r}, but must be 'f16' or 'f32'")


def _params(n_ctx: int, n_batch: int, n_threads: int, kv_type: str) -> Any:
    params = ffi.new("iq_context_params *")
    params.n_ctx, params.n_batch, params.n_seq, params.n_threads = n_ctx, n_batch, 1, n_threads
    params.kv_type = formats.by_name(kv_type).id
    return params


def _create(native_program: NativeProgram, params: Any) -> Any:
    out = ffi.new("iq_context **")
    try:
        check(lib.iq_context_create, native_program.handle, params, out)
    except MemoryError as error:
        raise ResourceError(str(error)) from error

    def free(context: Any, keep: NativeProgram = native_program) -> None:
        lib.iq_context_free(context)  # `keep`: the program must outlive its contexts, whoever collects them

    return ffi.gc(out[0], free)


def _check_memory(native_program: NativeProgram, params: Any) -> None:
    """Raises ResourceError, saying what would fit, if the context is larger than the memory that is free."""
    free = machine.available_memory()
    needed = _bytes_used(native_program, params)
    if free is None or needed <= free or needed >= _INVALID:
        return
    raise ResourceError(
        f"a context of {params.n_ctx} tokens needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB of memory are free: "
        + _advice(native_program, params, free)
    )


def _bytes_used(native_program: NativeProgram, params: Any) -> int:
    """Memory of a context, without the rows of logits that are reserved for a whole batch but hardly ever written."""
    reserved: int = lib.iq_context_bytes(native_program.handle, params)
    unused: int = 4 * (params.n_batch - 1) * native_program.program.logits.n_cols
    return reserved - unused


def _advice(native_program: NativeProgram, params: Any, free: int) -> str:
    """The largest n_ctx that fits, by bisection."""
    low, high = 0, int(params.n_ctx)
    while high - low > 1:
        params.n_ctx = (low + high) // 2
        if _bytes_used(native_program, params) <= free:
            low = params.n_ctx
        else:
            high = params.n_ctx
    return f"n_ctx={low} would fit" if low >= 64 else "close other programs, or use a machine with more memory"
