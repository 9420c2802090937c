"""`LlamaRAMCache`: keeps what prompts left behind, so that one of them that comes back is not read again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from iqrun.chat.session import common_prefix
from iqrun.compat.state import LlamaState


class LlamaRAMCache:
    """States by their tokens, the latest ones as long as they fit; for `Llama.set_cache`. Several objects may share it.

    It pays where several long prompts take turns: a prompt that begins like the last one is not read again anyway.
    """

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        """`capacity_bytes`: most memory that states may take."""
        self.capacity_bytes = capacity_bytes
        self._states: OrderedDict[tuple[int, ...], LlamaState] = OrderedDict()
        self._lock = Lock()

    @property
    def cache_size(self) -> int:
        """Bytes in use."""
        return sum(state.llama_state_size for state in self._states.values())

    def __contains__(self, key: Sequence[int]) -> bool:
        """Whether a state begins like these tokens."""
        return self.find(key) is not None

    def __getitem__(self, key: Sequence[int]) -> LlamaState:
        """As `find`; KeyError if there is none."""
        found = self.find(key)
        if found is None:
            raise KeyError("no state begins like these tokens")
        return found

    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        with self._lock:
            self._states[tuple(key)] = value
            self._states.move_to_end(tuple(key))
            while self._states and self.cache_size > self.capacity_bytes:
                self._states.popitem(last=False)

    def find(self, key: Sequence[int]) -> LlamaState | None:
        """The state that has most tokens in common with the beginning of these; None if there is none."""
        with self._lock:
            best = max(self._states, key=lambda known: common_prefix(known, key), default=())
            if common_prefix(best, key) == 0:
                return None
            self._states.move_to_end(best)
            return self._states[best]
