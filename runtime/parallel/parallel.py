"""`Parallel`: sessions of several threads that share one engine, so that one step advances all that wait for a token.

Whoever comes while a step runs leaves its token in a queue and waits; the first to wake takes all that wait into the
next step. Nothing runs in the background, and one thread alone is as fast as with a session of its own. What prompts
begin with (a system message) is read once. Each session computes what it would compute alone, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from iqrun.engine.context import Context
from iqrun.engine.steps import Floats, Way
from iqrun.errors import ResourceError
from iqrun.generation.batch import KV_BLOCK
from iqrun.gguf import Metadata
from iqrun.parallel.session import ParallelSession
from iqrun.tokenizer import Tokenizer

if TYPE_CHECKING:
    from iqrun.chat.chat import Chat


class _Request:
    """A token that waits for its step; afterwards its logits, or what went wrong."""

    def __init__(self, seq: int, token: int) -> None:
        self.seq, self.token = seq, token
        self.logits: Floats | None = None
        self.error: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Whether its step is over."""
        return self.logits is not None or self.error is not None


class Parallel:
    """Sessions and chats that are meant to run at the same time, each in a thread; made by `Model.parallel`.

    Use it as a context manager, or call `close`.

    Example:
        >>> with model.parallel(4) as parallel:
        ...     chats = [parallel.chat(system="You are brief.") for _ in range(4)]
        ...     # give each to a thread: their answers advance together

    Attributes:
        tokenizer: of the model.
        metadata: of its file.
        n_ctx: tokens that each session holds.
    """

    def __init__(self, context: Context, tokenizer: Tokenizer, metadata: Metadata, n_ctx: int) -> None:
        """Takes a context with a sequence for each session and room for `n_ctx` tokens in each."""
        self.tokenizer, self.metadata, self.n_ctx = tokenizer, metadata, n_ctx
        self.context = context
        self._free = list(range(context.n_seq))
        self._n_prompt = [0] * context.n_seq  # tokens at the beginning that were read as a prompt, for others to share
        self._waiting: list[_Request] = []
        self._queue_lock = Lock()
        self._turn = Lock()
        self._reading: int | None = None  # the sequence whose prompt is being read

    def session(self) -> ParallelSession:
        """An empty session. Close it when it is not needed any more: the next one takes its place.

        Raises:
            ClosedError: this was closed.
            ResourceError: as many as were asked for are in use.
        """
        with self._queue_lock:
            if not self._free:
                raise ResourceError(
                    f"all {self.context.n_seq} sessions are in use: close one, or ask Model.parallel for more"
                )
            seq = self._free.pop(0)
        self.truncate(seq, 0)
        return ParallelSession(self, seq)

    def chat(self, system: str | None = None, **options: Any) -> Chat:
        """Starts a conversation in a session of this; the options are those of `Chat`."""
        from iqrun.chat.chat import Chat

        return Chat(self, system=system, **options)

    def close(self) -> None:
        """Stops what runs and frees the memory; safe to call twice."""
        self.context.close()

    def __enter__(self) -> Parallel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- for the sessions ----

    def advance(self, seq: int, token: int) -> Floats:
        """Appends one token to a sequence, together with those of other threads; its logits."""
        request = _Request(seq, token)
        with self._queue_lock:
            self._waiting.append(request)
        try:
            with self._my_turn():
                if not request.is_done:
                    self._step(request)
        except BaseException:  # Ctrl-C while it waited: nobody else shall evaluate it
            with self._queue_lock, suppress(ValueError):
                self._waiting.remove(request)
            raise
        if request.error is not None:  # it may be raised in several threads: each gets its own
            raise type(request.error)(*request.error.args) from request.error
        assert request.logits is not None
        return request.logits

    def read(self, seq: int, ids: Sequence[int], flags: npt.NDArray[np.bool_], way: Way) -> Floats:
        """Appends several tokens to a sequence; what another one read already is taken from there."""
        with self._my_turn():
            is_prompt = way == "prefill" and len(self.context.tokens[seq]) == self._n_prompt[seq]
            n_known = self._take_prefix(seq, ids, flags) if is_prompt else 0
            self._reading = seq
            try:
                rows = self.context.evaluate(ids[n_known:], seq, flags[n_known:], way)
            finally:
                self._reading = None
            if is_prompt:
                self._n_prompt[seq] = len(self.context.tokens[seq])
        return rows

    def truncate(self, seq: int, length: int) -> None:
        """Keeps the first tokens of a sequence."""
        with self._my_turn():
            self.context.truncate(length, seq)
            self._n_prompt[seq] = min(self._n_prompt[seq], length)

    def replace(self, seq: int, tokens: npt.NDArray[np.int32], cache: npt.NDArray[np.uint8]) -> None:
        """Makes a sequence what was exported."""
        with self._my_turn():
            self.context.import_state(tokens, cache, seq)
            self._n_prompt[seq] = 0

    def cancel(self, seq: int) -> None:
        """Stops reading the prompt of a sequence."""
        if self._reading == seq:
            self.context.cancel()

    def give_back(self, seq: int) -> None:
        """Takes a sequence from its session. Its tokens stay for others to share until the place is needed."""
        with self._queue_lock:
            self._free.append(seq)

    # ---- inside ----

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        """The engine for one thread; others wait."""
        self.context.check_process()  # in a child process nobody may be left to let us in
        with self._turn:
            yield

    def _step(self, own: _Request) -> None:
        """Advances all sequences that wait, `own` among them."""
        with self._queue_lock:
            requests, self._waiting = self._waiting, []
        try:
            ids, seqs = [request.token for request in requests], [request.seq for request in requests]
            rows = self.context.evaluate(ids, seqs, np.ones(len(ids), np.bool_), "decode")
        except Exception as error:
            for request in requests:
                request.error = error
            return
        except BaseException:  # Ctrl-C in this thread is not for the others: they try again
            with self._queue_lock:
                self._waiting[:0] = [request for request in requests if request is not own]
            raise
        for request, row in zip(requests, rows, strict=True):
            request.logits = row

    def _take_prefix(self, seq: int, ids: Sequence[int], flags: npt.NDArray[np.bool_]) -> int:
        """Shares what the prompt of a sequence has in common with another's; how many of `ids` are in it."""
        held = self.context.tokens[seq]
        n_silent = int(flags.argmax()) if flags.any() else len(ids) - 1  # the others' logits are needed
        prompt = [*held, *ids[:n_silent]]
        shared = [(self._agreement(other, prompt), other) for other in range(self.context.n_seq) if other != seq]
        n, other = max(shared, default=(0, seq))
        if n < len(held) + KV_BLOCK:  # blocks are shared as a whole
            return 0
        self.context.copy(other, seq, n)
        return n - len(held)

    def _agreement(self, seq: int, ids: Sequence[int]) -> int:
        """How many tokens of a sequence's prompt `ids` begins with."""
        pairs = zip(self.context.tokens[seq][: self._n_prompt[seq]], ids, strict=False)
        return next((place for place, (a, b) in enumerate(pairs) if a != b), min(self._n_prompt[seq], len(ids)))
