"""Metadata of a GGUF file: typed values, decoded when they are asked for.

A vocabulary holds hundreds of thousands of strings, so an array stays where it is in the file until somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, TypeVar, Union, overload

import numpy as np
import numpy.typing as npt

from iqrun.errors import GGUFError, shown
from iqrun.gguf.keys import DTYPES, FLOATS, INTEGERS, ValueType

T = TypeVar("T")
Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Value = Union[int, float, bool, str, Array, "StringArray"]
ArrayKind = Literal["str", "int", "float", "bool"]

LENGTH_BYTES = 8  # of a string
_ARRAY_HEADER_BYTES = 12  # element type u32, count u64


class _Required:
    """Stands for "no default: the key must be there"."""


REQUIRED = _Required()


class StringArray(Sequence[str]):
    """The strings of an array value, decoded one by one from the file's bytes.

    Invalid UTF-8 reads as U+FFFD; `raw` gives the bytes as they are.
    """

    def __init__(self, data: Bytes, starts: npt.NDArray[np.uint64]) -> None:
        """`starts`: where each string's length field stands in `data`, and the end after the last one."""
        self._data = data
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.raw(index).decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        return (raw.decode("utf-8", "replace") for raw in self.iter_raw())

    def __repr__(self) -> str:
        return f"<StringArray of {len(self)}>"

    def copy(self) -> StringArray:
        """The same strings in memory of their own, so that the file can go."""
        data, starts = self.stored()
        return StringArray(data.copy(), starts)

    def stored(self) -> tuple[Bytes, npt.NDArray[np.uint64]]:
        """The bytes of all strings, each behind its length (u64), and where in them each begins, and the end."""
        first, end = int(self._starts[0]), int(self._starts[-1])
        return self._data[first:end], self._starts - self._starts[0]

    def bounds(self) -> tuple[Bytes, npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """The bytes of `stored`, and where in them the text of each string begins and ends."""
        data, starts = self.stored()
        return data, starts[:-1] + np.uint64(LENGTH_BYTES), starts[1:]

    def raw(self, index: int) -> bytes:
        """The bytes of one string."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"string {index} of {len(self)}")
        index %= len(self)
        return self._data[int(self._starts[index]) + LENGTH_BYTES : int(self._starts[index + 1])].tobytes()

    def iter_raw(self) -> Iterator[bytes]:
        """The bytes of every string, in order; several times faster than `raw` in a loop."""
        data, begins, ends = self.bounds()
        blob = data.tobytes()
        return (blob[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a value stands and what it is.

    Attributes:
        kind: its type; `item` is the type of an array's elements.
        count: elements of an array, else 1.
        start, end: its bytes in the file, including a string's length or an array's header.
        starts: of a string array, where each string begins.
    """

    kind: ValueType
    item: ValueType | None
    count: int
    start: int
    end: int
    starts: npt.NDArray[np.uint64] | None = None

    def describe(self) -> str:
        """The type in words, e.g. ``uint32`` or ``array of string``."""
        return self.kind.name.lower() if self.item is None else f"array of {self.item.name.lower()}"


class Metadata(Mapping[str, Value]):
    """The key/value pairs of one file, in file order.

    ``metadata[key]`` is a Python int, float, bool or str, a read-only numpy array, or a `StringArray`.
    """

    def __init__(self, data: Bytes, entries: Mapping[str, Entry], path: str | PathLike[str]) -> None:
        self._data = data
        self._entries = entries
        self._path = path

    def __getitem__(self, key: str) -> Value:
        return _decode(self._data, self._entries[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __repr__(self) -> str:
        return f"<Metadata of {self._path}: {len(self)} keys>"

    def entry(self, key: str) -> Entry:
        """Type and place of a value."""
        return self._entries[key]

    def raw_value(self, key: str) -> bytes:
        """The bytes of a value as stored (after its type code), to be written elsewhere unchanged."""
        entry = self._entries[key]
        return self._data[entry.start : entry.end].tobytes()

    def raw_str(self, key: str) -> bytes:
        """The bytes of a string value."""
        entry = self._typed(key, {ValueType.STRING}, "a string")
        return self._data[entry.start + LENGTH_BYTES : entry.end].tobytes()

    @overload
    def get_uint(self, key: str) -> int: ...
    @overload
    def get_uint(self, key: str, default: T) -> int | T: ...
    def get_uint(self, key: str, default: T | _Required = REQUIRED) -> int | T:
        """An integer >= 0 of any width.

        Raises:
            GGUFError: the key is missing and there is no default, or it holds something else.
        """
        if self._absent(key, default):
            return default  # type: ignore[return-value]
        entry = self._typed(key, INTEGERS, "an integer")
        value = _decode(self._data, entry)
        if not isinstance(value, int) or value < 0:
            raise self._error(key, f"is {value}, but must not be negative")
        return value

    @overload
    def get_float(self, key: str) -> float: ...
    @overload
    def get_float(self, key: str, default: T) -> float | T: ...
    def get_float(self, key: str, default: T | _Required = REQUIRED) -> float | T:
        """A number, as float.

        Raises:
            GGUFError: the key is missing and there is no default, or it holds something else.
        """
        if self._absent(key, default):
            return default  # type: ignore[return-value]
        value = _decode(self._data, self._typed(key, FLOATS | INTEGERS, "a number"))
        assert isinstance(value, (int, float))
        return float(value)

    @overload
    def get_bool(self, key: str) -> bool: ...
    @overload
    def get_bool(self, key: str, default: T) -> bool | T: ...
    def get_bool(self, key: str, default: T | _Required = REQUIRED) -> bool | T:
        """A truth value.

        Raises:
            GGUFError: the key is missing and there is no default, or it holds something else.
        """
        if self._absent(key, default):
            return default  # type: ignore[return-value]
        return bool(_decode(self._data, self._typed(key, {ValueType.BOOL}, "a bool")))

    @overload
    def get_str(self, key: str) -> str: ...
    @overload
    def get_str(self, key: str, default: T) -> str | T: ...
    def get_str(self, key: str, default: T | _Required = REQUIRED) -> str | T:
        """A string; invalid UTF-8 reads as U+FFFD.

        Raises:
            GGUFError: the key is missing and there is no default, or it holds something else.
        """
        if self._absent(key, default):
            return default  # type: ignore[return-value]
        return self.raw_str(key).decode("utf-8", "replace")

    @overload
    def get_array(self, key: str, kind: Literal["str"]) -> StringArray: ...
    @overload
    def get_array(self, key: str, kind: Literal["int", "float", "bool"]) -> Array: ...
    @overload
    def get_array(self, key: str, kind: Literal["str"], default: T) -> StringArray | T: ...
    @overload
    def get_array(self, key: str, kind: Literal["int", "float", "bool"], default: T) -> Array | T: ...
    def get_array(self, key: str, kind: ArrayKind, default: T | _Required = REQUIRED) -> Array | StringArray | T:
        """An array whose elements are all strings, integers, floats or bools (`kind`).

        Returns:
            A `StringArray`, or a read-only numpy array of the stored width (bools as ``bool``).

        Raises:
            GGUFError: the key is missing and there is no default, or it holds something else.
        """
        if self._absent(key, default):
            return default  # type: ignore[return-value]
        entry = self._entries[key]
        items = {"str": {ValueType.STRING}, "int": INTEGERS, "float": FLOATS, "bool": {ValueType.BOOL}}[kind]
        if entry.item not in items:
            raise self._error(key, f"is {_article(entry.describe())}, but must be an array of {kind}")
        value = _decode(self._data, entry)
        assert isinstance(value, (np.ndarray, StringArray))
        return value

    def _absent(self, key: str, default: object) -> bool:
        if key in self._entries:
            return False
        if isinstance(default, _Required):
            raise self._error(key, "is missing")
        return True

    def _typed(self, key: str, kinds: frozenset[ValueType] | set[ValueType], wanted: str) -> Entry:
        entry = self._entries[key]
        if entry.kind not in kinds:
            raise self._error(key, f"is {_article(entry.describe())}, but must be {wanted}")
        return entry

    def _error(self, key: str, what: str) -> GGUFError:
        return GGUFError(f"metadata key {shown(key)} {what}", path=self._path, key=key)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aio" else f"a {noun}"


def _decode(data: Bytes, entry: Entry) -> Value:
    if entry.item is ValueType.STRING:
        assert entry.starts is not None
        return StringArray(data, entry.starts)
    if entry.item is not None:
        return _decode_array(data, entry, entry.item)
    if entry.kind is ValueType.STRING:
        return data[entry.start + LENGTH_BYTES : entry.end].tobytes().decode("utf-8", "replace")
    value = np.frombuffer(data[entry.start : entry.end].tobytes(), DTYPES[entry.kind])[0].item()
    return bool(value) if entry.kind is ValueType.BOOL else value


def _decode_array(data: Bytes, entry: Entry, item: ValueType) -> Array:
    """A view where the file's alignment allows it: C code must be free to load the elements."""
    array: Array = data[entry.start + _ARRAY_HEADER_BYTES : entry.end].view(DTYPES[item])
    if item is ValueType.BOOL:
        array = array != 0
    elif not array.flags.aligned:
        array = array.copy()
    array.flags.writeable = False
    return array
