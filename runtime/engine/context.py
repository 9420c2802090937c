"""`Context`: the native engine at work for one model: threads, buffers, and the KV cache of some sequences."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.engine.account import ContextAccount
from iqrun.engine.allocation import N_BATCH, KVType, context_params, create_context
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.steps import Batch, Floats, Ints, Steps, Visit, Way
from iqrun.errors import CancelledError, ClosedError, ContextFullError
from iqrun.native import check, ffi, lib, pointer
from iqrun.program import Program

Flags: TypeAlias = npt.NDArray[np.bool_]
_SLACK = 256  # more than the positions that a sequence takes besides its tokens: it begins a block, or copies one

Ids: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]


class Context:
    """Sequences of tokens with their KV cache, and the threads to extend them. They share `n_ctx` positions.

    May be used by several threads: one call runs at a time, the others wait. Not usable after a fork.

    Attributes:
        n_ctx: tokens that fit, of all sequences together.
        n_seq: number of sequences.
        n_threads: threads that compute.
        n_batch: most tokens in one step of the engine.
        kv_type: type of cached keys and values.
        tokens: of each sequence, those evaluated so far.
    """

    def __init__(
        self,
        native_program: NativeProgram,
        *,
        n_ctx: int,
        n_threads: int,
        kv_type: KVType = "f16",
        n_batch: int = N_BATCH,
        n_seq: int = 1,
    ) -> None:
        """Allocates the KV cache and starts the threads.

        Raises:
            ResourceError: there is not enough memory; the message says what would fit.
            ValueError: an argument is out of range.
        """
        params = context_params(n_ctx, n_threads, kv_type, n_batch, n_seq)
        self._native_program: NativeProgram | None = native_program
        self._n_ids, self._logits = native_program.program.n_vocab, native_program.program.logits
        self.n_ctx, self.n_seq, self.n_threads = n_ctx, n_seq, n_threads
        self.n_batch: int = params.n_batch
        self.kv_type: KVType = kv_type
        stream = native_program.stream
        self._account = None if stream is None else ContextAccount(native_program, stream, params)
        handle = create_context(native_program, params, self._account)
        self._steps: Steps | None = Steps(handle, native_program.program)
        self.tokens: list[list[int]] = [[] for _ in range(n_seq)]
        self._lock = Lock()  # held while the engine computes
        self._turn: AbstractContextManager[object] = nullcontext() if stream is None else stream.turn
        self._cancel_lock = Lock()  # held while the engine is cancelled or taken away
        self._n_outputs = None if stream is None else stream.n_outputs
        self._cancelled = self._closing = False
        self._pid = os.getpid()

    @property
    def program(self) -> Program:
        """What runs here. A closed context has forgotten it: it refers to the weights, and so to the file's map."""
        return self.native_program.program

    @property
    def native_program(self) -> NativeProgram:
        """The same, as the engine has it."""
        if self._native_program is None:
            raise ClosedError("this session is closed")
        return self._native_program

    @property
    def n_vocab(self) -> int:
        """Number of logits per token."""
        return self._logits.n_cols

    @property
    def n_free(self) -> int:
        """Positions in KV blocks that no sequence holds."""
        with self._using() as steps:
            free: int = lib.iq_kv_free(steps.handle)
        return free

    # ---- evaluation ----

    def evaluate(self, ids: Ids, seqs: Ids | int, wanted: Flags, way: Way = "auto") -> Floats:
        """Appends tokens to sequences and computes logits.

        Args:
            ids: at least one token id.
            seqs: the sequence of each token, or of all; a sequence's tokens stand in their order.
            wanted: bool, one per token: whose logits to return.
            way: which arithmetic, see ``iq_step_way``.

        Returns:
            float32 ``(number of wanted tokens, n_vocab)``.

        Raises:
            ContextFullError: the tokens do not fit.
            CancelledError: `cancel` was called.
            ClosedError: the context was closed, or the process forked.
            ValueError: no tokens, or an id outside the vocabulary.

            After any of them all sequences are as they were before.
        """
        tokens, owners = self.checked_ids(ids), np.zeros(len(ids), np.int32)
        owners += np.asarray(seqs, np.int32)
        out = np.empty((int(wanted.sum()), self.n_vocab), np.float32)
        with self._using() as steps, self._all_or_nothing():
            self._check_room(owners)
            filled = 0
            for piece in self._pieces(wanted):
                n_out = int(wanted[piece].sum())
                batch = Batch(tokens[piece], owners[piece], wanted[piece], way)
                self._count(len(tokens[piece]))
                steps.run(batch, out[filled : filled + n_out])
                self._append(tokens[piece], owners[piece])
                filled += n_out
        return out

    def evaluate_one(self, token: int) -> Floats:
        """As `evaluate` with one token of sequence 0, without the arrays that a batch needs: microseconds count here.

        Returns:
            float32 ``(n_vocab,)``.
        """
        if not isinstance(token, (int, np.integer)) or not 0 <= token < self._n_ids:
            self.checked_ids([token])  # raises
        self.check_process()
        out = np.empty(self._logits.n_cols, np.float32)
        with self._lock:  # as `_using`, of which a generator would be made
            steps, tokens = self._opened(), self.tokens[0]
            with self._turn:
                self._check_not_cancelled()
                self._check_fits(len(tokens), 1)
                self._count(1)
                steps.run_one(int(token), out)
                tokens.append(int(token))
        return out

    def trace(self, ids: Ids, ops: Sequence[int], visit: Visit) -> None:
        """Appends tokens to sequence 0 and shows what goes into chosen operations; see `Session.trace`."""
        tokens = self.checked_ids(ids)
        owners = np.zeros(len(tokens), np.int32)
        with self._using() as steps, self._all_or_nothing():
            self._check_room(owners)
            for piece in self._pieces(np.zeros(len(tokens), np.bool_)):
                self._count(len(tokens[piece]))
                steps.trace(Batch(tokens[piece], owners[piece], np.ones(len(tokens[piece]), np.bool_)), ops, visit)
                self._append(tokens[piece], owners[piece])

    def checked_ids(self, ids: Ids) -> Ints:
        """Token ids as the engine wants them.

        Raises:
            ValueError: they are not a flat list of at least one id of the vocabulary.
        """
        array = np.asarray(ids)
        if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
            raise ValueError("the token ids must be a flat list of at least one integer")
        bad = array[(array < 0) | (array >= self._n_ids)]
        if bad.size:
            raise ValueError(f"token id {bad[0]} is not in the vocabulary of {self._n_ids} tokens")
        return np.ascontiguousarray(array, dtype=np.int32)

    # ---- sequences ----

    def truncate(self, length: int, seq: int = 0) -> None:
        """Keeps only the first `length` tokens of a sequence.

        Raises:
            ClosedError: the context was closed, or the process forked.
            ValueError: `length` is negative or more than there are.
        """
        with self._using():
            if not 0 <= length <= len(self.tokens[seq]):
                raise ValueError(f"cannot truncate {len(self.tokens[seq])} tokens to {length}")
            self._truncate(seq, length)

    def copy(self, source: int, target: int, length: int) -> None:
        """Makes sequence `target` begin with the first `length` tokens of `source`; what can be shared is.

        Raises:
            ContextFullError: no KV block is free for the part that cannot be shared.
        """
        with self._using() as steps:
            self._count(0)
            check(lib.iq_seq_copy, steps.handle, source, target, length)
            self.tokens[target] = self.tokens[source][:length]

    def export_state(self, seq: int = 0) -> tuple[list[int], npt.NDArray[np.uint8]]:
        """The tokens of a sequence, and their keys and values as ``iq_seq_export`` lays them out."""
        with self._using() as steps:
            tokens = list(self.tokens[seq])
            data = np.empty(lib.iq_seq_state_bytes(steps.handle, len(tokens)), np.uint8)
            state = pointer(data, "void *", writable=True)
            check(lib.iq_seq_export, steps.handle, seq, len(tokens), state, data.size)
        return tokens, data

    def import_state(self, ids: Ids, data: npt.NDArray[np.uint8], seq: int = 0) -> None:
        """Makes a sequence consist of tokens whose keys and values were exported before.

        Raises:
            ContextFullError: they do not fit; the sequence is unchanged.
            ValueError: the data have the wrong size, or an id is not in the vocabulary; the sequence is unchanged.
        """
        tokens = self.checked_ids(ids) if len(ids) else np.zeros(0, np.int32)
        with self._using() as steps:
            others = sum(len(held) for held in self.tokens) - len(self.tokens[seq])
            self._check_fits(others, len(tokens))
            self._count(0, n_cached=len(tokens))
            state = pointer(data, "const void *")
            check(lib.iq_seq_import, steps.handle, seq, len(tokens), state, data.size)
            self.tokens[seq] = tokens.tolist()

    # ---- life ----

    def cancel(self) -> None:
        """Makes an evaluation that runs in another thread stop soon, with `CancelledError`."""
        with self._cancel_lock:
            self._cancelled = True
            if self._steps is not None:
                self._steps.cancel()

    def profile(self, enabled: bool = True) -> list[float]:
        """Seconds spent in each operation of the program since the last call; then counts anew, if `enabled`."""
        with self._using() as steps:
            return steps.profile(enabled)

    def close(self) -> None:
        """Stops what runs and frees the memory; safe to call twice."""
        if self._pid != os.getpid():
            self._steps = None  # the child has a copy of the memory, but no threads to stop
            return
        self._closing = True  # whoever waits for the lock shall not begin
        self.cancel()
        with self._lock, self._cancel_lock:
            steps, self._steps, self._native_program = self._steps, None, None
            if steps is not None:
                ffi.release(steps.handle)

    # ---- inside ----

    @contextmanager
    def _using(self) -> Iterator[Steps]:
        """The engine for one call; others wait."""
        self.check_process()  # before the lock: in a child process nobody may be left to open it
        with self._lock:
            steps = self._opened()
            with self._turn:
                self._check_not_cancelled()
                yield steps

    def _opened(self) -> Steps:
        """The engine; from now on it may be cancelled."""
        if self._steps is None or self._closing:
            raise ClosedError("this session is closed: its model was closed, or close() was called")
        self._cancelled = False
        return self._steps

    def _check_not_cancelled(self) -> None:
        if self._cancelled:
            raise CancelledError("the evaluation was cancelled")

    def check_process(self) -> None:
        """Raises ClosedError in a child process."""
        if self._pid != os.getpid():
            raise ClosedError("a model loaded before a fork cannot run in the child process: load it there")

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        lengths = [len(tokens) for tokens in self.tokens]
        try:
            yield
        except BaseException:
            for seq, length in enumerate(lengths):
                self._truncate(seq, length)
            raise

    def _check_room(self, owners: Ints) -> None:
        if self.n_seq == 1:
            self._check_fits(len(self.tokens[0]), len(owners))  # else blocks are shared: the engine knows

    def _check_fits(self, n_held: int, n_tokens: int) -> None:
        if n_held + n_tokens > self.n_ctx:
            raise ContextFullError(
                f"{n_held} + {n_tokens} tokens do not fit in a context of {self.n_ctx}: "
                "shorten the text or load the model with a larger n_ctx"
            )

    def _count(self, n_tokens: int, n_cached: int = 0) -> None:
        """Under a memory limit: tells what a step of so many tokens will touch, or the writing of so many positions."""
        if self._account is None or self._steps is None:
            return
        n_new, n_used = n_tokens + n_cached, len(self.tokens[0])
        if self.n_seq > 1:
            n_used = self.n_ctx - lib.iq_kv_free(self._steps.handle) + _SLACK * self.n_seq
        self._account.touch(n_tokens, n_used + n_new)

    def _truncate(self, seq: int, length: int) -> None:
        """Also where Ctrl-C came between the engine's work and our note of it."""
        assert self._steps is not None
        check(lib.iq_seq_truncate, self._steps.handle, seq, length)
        del self.tokens[seq][length:]

    def _append(self, tokens: Ints, owners: Ints) -> None:
        if self.n_seq == 1:
            self.tokens[0] += tokens.tolist()
            return
        for token, seq in zip(tokens.tolist(), owners.tolist(), strict=True):
            self.tokens[seq].append(token)

    def _pieces(self, wanted: Flags) -> Iterator[slice]:
        """The steps of a long evaluation, until it is cancelled."""
        first = 0
        while first < len(wanted):
            self._check_not_cancelled()
            last = min(first + self.n_batch, len(wanted))
            marked = np.flatnonzero(wanted[first:last])
            if self._n_outputs is not None and len(marked) > self._n_outputs:
                last = first + int(marked[self._n_outputs])
            yield slice(first, last)
            first = last
