"""`Session`: one sequence of tokens and its KV cache inside the native engine."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.engine import state
from iqrun.engine.allocation import N_BATCH
from iqrun.engine.allocation import KVType as KVType
from iqrun.engine.context import Context
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.steps import Floats, Visit, Way
from iqrun.errors import StateError
from iqrun.program import Program

Want: TypeAlias = Literal["last", "all"] | npt.NDArray[np.bool_]


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
        self._context = Context(native_program, n_ctx=n_ctx, n_threads=n_threads, kv_type=kv_type, n_batch=n_batch)
        self.n_ctx, self.n_threads = n_ctx, n_threads

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens evaluated so far."""
        return tuple(self._context.tokens[0])

    def recent(self, n: int) -> list[int]:
        """The last `n` tokens evaluated, or all if there are fewer."""
        return self._context.tokens[0][-n:] if n > 0 else []

    @property
    def n_vocab(self) -> int:
        """Number of logits per token."""
        return self._context.n_vocab

    def __len__(self) -> int:
        return len(self._context.tokens[0])

    def evaluate(
        self, ids: Sequence[int] | npt.NDArray[np.integer[Any]], want: Want = "last", way: Way | None = None
    ) -> Floats:
        """Appends tokens and computes logits.

        Args:
            ids: at least one token id.
            want: whose logits to return: those of the ``"last"`` token, of ``"all"``, or of those that a bool array
                with one entry per token marks.
            way: the order of summation. ``"decode"`` gives each token the bits that it has when it comes alone,
                ``"prefill"`` those that it has in a long prompt however that is cut, ``"auto"`` the faster one for each
                product. None takes ``"decode"`` for one token and ``"prefill"`` for the last of several, else
                ``"auto"``.

        Returns:
            float32, ``(n_vocab,)`` for ``"last"``, else ``(number of wanted tokens, n_vocab)``.

        Raises:
            ContextFullError: the tokens do not fit; the session is unchanged.
            CancelledError: `cancel` was called; the session is unchanged.
            ClosedError: the session was closed, or the process forked.
            ValueError: no tokens, or an id outside the vocabulary; the session is unchanged.
        """
        last = isinstance(want, str) and want == "last"
        if last and len(ids) == 1 and way is None:
            return self._context.evaluate_one(ids[0])
        wanted = wanted_flags(len(self._context.checked_ids(ids)), want)
        rows = self._context.evaluate(ids, 0, wanted, way or ("prefill" if last else "auto"))
        return rows[0] if last else rows

    def trace(
        self,
        ids: Sequence[int] | npt.NDArray[np.integer[Any]],
        ops: Sequence[int],
        visit: Visit,
    ) -> None:
        """Appends tokens and shows what goes into chosen operations on the way; computes no logits.

        Args:
            ids: at least one token id.
            ops: indices of operations of the program, ascending.
            visit: called as ``visit(op, x, experts)`` just before each of them; `x` is the operation's first input,
                float32 ``(n_tokens of the step, n_cols)``, the caller's own. Rows that were dealt to experts have the
                expert of each in `experts`, int32 ascending; else it is None.

        Raises:
            ContextFullError, CancelledError, ClosedError, ValueError: as `evaluate`; the session is unchanged.
        """
        self._context.trace(ids, ops, visit)

    def truncate(self, length: int) -> None:
        """Keeps only the first `length` tokens.

        Raises:
            ClosedError: the session was closed, or the process forked.
            ValueError: `length` is negative or more than there are.
        """
        self._context.truncate(length)

    def save_state(self) -> bytes:
        """The tokens with their keys and values: what `load_state` needs to go on from here without reading them again.

        It is about as large as the part of the KV cache that is in use, and bound to this model and `kv_type`.

        Raises:
            ClosedError: the session was closed, or the process forked.
        """
        tokens, cache = self._context.export_state()
        return state.pack(self._context.native_program, self._context.kv_type, tokens, cache)

    def load_state(self, data: bytes | bytearray | memoryview) -> None:
        """Makes the session what it was when `save_state` was called, in this or another process or context size.

        Args:
            data: from `save_state`. Everything is checked: data of another model, or damaged, change nothing.

        Raises:
            ClosedError: the session was closed, or the process forked.
            ContextFullError: there are more tokens than `n_ctx`; the session is unchanged.
            StateError: the data are damaged, from another model or from another version; the session is unchanged.
        """
        tokens, cache = state.unpack(data, self._context.native_program, self._context.kv_type)
        try:
            self._context.import_state(tokens, cache)
        except ValueError as error:
            raise StateError(f"this state does not fit the model: {error}") from error

    def cancel(self) -> None:
        """Makes an evaluation that runs in another thread stop soon, with `CancelledError`."""
        self._context.cancel()

    def profile(self, enabled: bool = True) -> list[float]:
        """Seconds spent in each operation of the program since the last call; then counts anew, if `enabled`."""
        return self._context.profile(enabled)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops what runs and frees the memory; safe to call twice."""
        self._context.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Session cannot be pickled: it holds threads and a KV cache; send save_state() instead")

    @property
    def _program(self) -> Program:
        """What runs here; tests look at it."""
        return self._context.program


def wanted_flags(n_tokens: int, want: Want) -> npt.NDArray[np.bool_]:
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
