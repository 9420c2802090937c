"""Typed reading of an architecture's hyper-parameters (``llama.block_count`` ...) from a GGUF file.

What iqrun does not know it refuses: a key that changes the mathematics and is passed over gives wrong text silently.
"""

from __future__ import annotations

from math import isfinite
from typing import TypeVar

from iqrun.errors import UnsupportedModelError, shown
from iqrun.gguf import GGUFFile, keys

T = TypeVar("T")

# Keys that describe but do not compute. `vocab_size` is the embedding's row count, which is what counts.
_DESCRIPTIVE = frozenset({"vocab_size", "tensor_data_layout", "rope.scaling.finetuned"})
_HEAD_UNIT, _MAX_HEAD_DIM = 8, 512  # what the attention kernels take (engine/check.c)


class HParams:
    """The keys below ``<architecture>.`` of one file.

    Every read is remembered, so that `finish` can refuse the keys that nobody asked for.
    """

    def __init__(self, file: GGUFFile) -> None:
        self.path = file.path
        self._metadata = file.metadata
        self.arch = self._metadata.get_str(keys.ARCHITECTURE)
        self._prefix = f"{self.arch}."
        self._read: set[str] = set()

    def uint(self, name: str, default: int | None = None, *, low: int = 1, high: int = (1 << 31) - 1) -> int:
        """An integer in ``low .. high``; required if there is no default.

        Raises:
            GGUFError: the key is missing or has another type.
            UnsupportedModelError: the value is out of range.
        """
        key = self._key(name)
        value = self._metadata.get_uint(key) if default is None else self._metadata.get_uint(key, default)
        self.expect(low <= value <= high, f"{key} is {value}, but must be from {low} to {high}")
        return value

    def positive(self, name: str, default: float | None = None) -> float:
        """A finite number above 0; required if there is no default.

        Raises:
            GGUFError: the key is missing or has another type.
            UnsupportedModelError: the value is not above 0, infinite or NaN.
        """
        key = self._key(name)
        value = self._metadata.get_float(key) if default is None else self._metadata.get_float(key, default)
        self.expect(isfinite(value) and value > 0, f"{key} is {value}, but must be finite and above 0")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """A truth value."""
        return self._metadata.get_bool(self._key(name), default)

    def text(self, name: str, default: str) -> str:
        """A string."""
        return self._metadata.get_str(self._key(name), default)

    def head_dim(self, n_embd: int, n_head: int) -> int:
        """Columns per head: ``attention.key_length``, else ``n_embd / n_head``; values must be as wide as keys.

        Raises:
            UnsupportedModelError: it is not whole, differs between keys and values, or is not what the kernels take.
        """
        if self._prefix + "attention.key_length" not in self._metadata:
            self.expect(n_embd % n_head == 0, f"n_embd {n_embd} is not a multiple of the {n_head} heads")
        head_dim = self.uint("attention.key_length", n_embd // n_head)
        self.expect(
            head_dim % _HEAD_UNIT == 0 and head_dim <= _MAX_HEAD_DIM,
            f"{self.arch}.attention.key_length gives heads of {head_dim} columns; iqrun runs multiples of {_HEAD_UNIT} "
            f"up to {_MAX_HEAD_DIM}",
        )
        value_length = self.uint("attention.value_length", head_dim)
        self.expect(
            value_length == head_dim,
            f"{self.arch}.attention.value_length is {value_length}, but keys have {head_dim} columns: not implemented",
        )
        return head_dim

    def refuse_sliding_window(self) -> None:
        """Refuses a window of attention that is narrower than the context: only full attention is implemented."""
        n_ctx = self.uint("context_length")
        window = self.uint("attention.sliding_window", n_ctx, low=0)
        self.expect(
            window == 0 or window >= n_ctx,
            f"{self.arch}.attention.sliding_window = {window} asks for something that iqrun does not implement",
        )

    def n_tokens(self) -> int | None:
        """Tokens in the file's vocabulary; None if it has none."""
        tokens = self._metadata.get_array(keys.TOKENS, "str", None)
        return None if tokens is None else len(tokens)

    def finish(self) -> None:
        """Refuses the architecture's keys that were not read, unless they are 0, false or empty.

        Raises:
            UnsupportedModelError: naming the first such key.
        """
        for key in self._metadata:
            name = key.removeprefix(self._prefix)
            if name == key or key in self._read or name in _DESCRIPTIVE:
                continue
            value = self._metadata[key]
            neutral = isinstance(value, (bool, int, float, str)) and not value
            self.expect(neutral, f"{key} = {shown(value)} asks for something that iqrun does not implement")

    def expect(self, condition: bool, message: str) -> None:
        """Raises UnsupportedModelError with the file's path unless `condition` holds."""
        if not condition:
            raise UnsupportedModelError(f"{self.path}: {message}")

    def _key(self, name: str) -> str:
        key = self._prefix + name
        self._read.add(key)
        return key
