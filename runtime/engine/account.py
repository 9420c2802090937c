"""`ContextAccount`: what a context has used so far of the memory that it may use, under a memory limit.

Its memory is reserved at once and taken page by page, as steps touch it: one token at a time uses one row of each
buffer, and a short text a small part of the KV cache. Until more is used, weights have the room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqrun.engine.allocation import context_bytes, used_bytes

if TYPE_CHECKING:
    from iqrun.engine.lowering import NativeProgram
    from iqrun.engine.stream import Stream


class ContextAccount:
    """Is told before each step what it will touch; weights then make room."""

    def __init__(self, native_program: NativeProgram, stream: Stream, params: Any) -> None:
        """Reserves what a context with these ``iq_context_params`` may use, and counts what it uses from the start.

        Raises:
            ResourceError: there is not so much.
        """
        self._native_program, self._stream, self._params = native_program, stream, params
        self._n_rows = self._n_positions = self._used = 0
        self._whole = context_bytes(native_program, params, stream.n_outputs)
        stream.reserve(self._whole)
        try:
            with stream.turn:
                self.touch(1, 1)
        except BaseException:
            self.close()
            raise

    def touch(self, n_rows: int, n_positions: int) -> None:
        """Counts a step of `n_rows` tokens, with which `n_positions` of the KV cache are used; it is our turn."""
        if n_rows <= self._n_rows and n_positions <= self._n_positions:
            return
        self._n_rows, self._n_positions = max(n_rows, self._n_rows), max(n_positions, self._n_positions)
        used = used_bytes(self._native_program, self._params, self._stream.n_outputs, self._n_rows, self._n_positions)
        if used > self._used:
            self._stream.use(used - self._used)
            self._used = used

    def close(self) -> None:
        """The context is gone; called once."""
        self._stream.give(self._used, self._whole - self._used)
