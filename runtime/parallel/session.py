"""`ParallelSession`: a sequence of a shared engine, with the face of `iqrun.Session`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from iqrun.engine import state
from iqrun.engine.session import Want, wanted_flags
from iqrun.engine.steps import Floats, Way
from iqrun.errors import ClosedError, ContextFullError, StateError

if TYPE_CHECKING:
    from iqrun.parallel.parallel import Parallel


class ParallelSession:
    """A session of a `Parallel`: as `iqrun.Session`, for one thread at a time.

    Attributes:
        n_ctx: tokens that fit.
    """

    def __init__(self, parallel: Parallel, seq: int) -> None:
        self._parallel: Parallel | None = parallel
        self._seq = seq
        self.n_ctx = parallel.n_ctx

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens evaluated so far."""
        return tuple(self._tokens)

    def recent(self, n: int) -> list[int]:
        """The last `n` tokens evaluated, or all if there are fewer."""
        return self._tokens[-n:] if n > 0 else []

    def __len__(self) -> int:
        return len(self._tokens)

    def evaluate(self, ids: Sequence[int], want: Want = "last", way: Way | None = None) -> Floats:
        """Appends tokens and computes logits; see `Session.evaluate`."""
        parallel = self._opened
        tokens = parallel.context.checked_ids(ids)
        if len(self) + len(tokens) > self.n_ctx:
            raise ContextFullError(
                f"{len(self)} + {len(tokens)} tokens do not fit in a context of {self.n_ctx}: shorten the text or "
                "load the model with a larger n_ctx"
            )
        last = isinstance(want, str) and want == "last"
        if last and len(tokens) == 1 and way in (None, "decode"):
            return parallel.advance(self._seq, int(tokens[0]))
        flags = wanted_flags(len(tokens), want)
        rows = parallel.read(self._seq, tokens.tolist(), flags, way or ("prefill" if last else "auto"))
        return rows[0] if last else rows

    def truncate(self, length: int) -> None:
        """Keeps only the first `length` tokens."""
        self._opened.truncate(self._seq, length)

    def save_state(self) -> bytes:
        """As `Session.save_state`."""
        context = self._opened.context
        tokens, cache = context.export_state(self._seq)
        return state.pack(context.native_program, context.kv_type, tokens, cache)

    def load_state(self, data: bytes | bytearray | memoryview) -> None:
        """As `Session.load_state`."""
        parallel = self._opened
        tokens, cache = state.unpack(data, parallel.context.native_program, parallel.context.kv_type)
        if len(tokens) > self.n_ctx:
            raise ContextFullError(f"the state has {len(tokens)} tokens, but the context holds {self.n_ctx}")
        try:
            parallel.replace(self._seq, tokens, cache)
        except ValueError as error:
            raise StateError(f"this state does not fit the model: {error}") from error

    def cancel(self) -> None:
        """Makes the reading of this session's prompt in another thread stop soon, with `CancelledError`."""
        if self._parallel is not None:
            self._parallel.cancel(self._seq)

    def close(self) -> None:
        """Gives the place to the next session; safe to call twice."""
        parallel, self._parallel = self._parallel, None
        if parallel is not None:
            parallel.give_back(self._seq)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a session cannot be pickled: send save_state() instead")

    @property
    def _opened(self) -> Parallel:
        if self._parallel is None:
            raise ClosedError("this session is closed")
        return self._parallel

    @property
    def _tokens(self) -> list[int]:
        return self._opened.context.tokens[self._seq]
