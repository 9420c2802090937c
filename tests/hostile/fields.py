"""Lists every field of a valid GGUF header, so that each can be broken alone. A reader of its own, not iqrun's."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tests.gguf_builder import ARRAY, CODES, STRING


@dataclass(frozen=True)
class Field:
    """A run of bytes with one meaning.

    Attributes:
        owner: the key or tensor that it belongs to; "" for the file's own fields.
        what: its meaning: magic, version, count, length, text, type, item, value, n_dims, dim or offset.
        start, size: its place.
    """

    owner: str
    what: str
    start: int
    size: int


class _Walk:
    """A position in a header; each step notes the field that it passes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.fields = data, 0, list[Field]()

    def take(self, owner: str, what: str, size: int) -> bytes:
        self.fields.append(Field(owner, what, self.at, size))
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, owner: str, what: str, size: int) -> int:
        return int.from_bytes(self.take(owner, what, size), "little")

    def name(self) -> str:
        """A key or a tensor name: it owns its own length and text."""
        size = int.from_bytes(self.data[self.at : self.at + 8], "little")
        owner = self.data[self.at + 8 : self.at + 8 + size].decode()
        self.number(owner, "length", 8)
        self.take(owner, "text", size)
        return owner

    def value(self, owner: str, kind: int) -> None:
        if kind == STRING:
            self.take(owner, "text", self.number(owner, "length", 8))
        elif kind == ARRAY:
            item, count = self.number(owner, "item", 4), self.number(owner, "count", 8)
            for _ in range(count):
                self.value(owner, item)
        else:
            self.take(owner, "value", struct.calcsize("<" + CODES[kind]))


def header_fields(data: bytes) -> list[Field]:
    """The fields of a header, in order, without gaps."""
    walk = _Walk(data)
    for what, size in (("magic", 4), ("version", 4)):
        walk.take("", what, size)
    n_tensors, n_kv = walk.number("", "count", 8), walk.number("", "count", 8)
    for _ in range(n_kv):
        key = walk.name()
        walk.value(key, walk.number(key, "type", 4))
    for _ in range(n_tensors):
        tensor = walk.name()
        for _ in range(walk.number(tensor, "n_dims", 4)):
            walk.number(tensor, "dim", 8)
        walk.number(tensor, "type", 4)
        walk.number(tensor, "offset", 8)
    return walk.fields


def entries(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Where each key with its value, and each tensor description, begins and ends."""
    fields = [field for field in header_fields(data) if field.owner]
    first = fields[0]
    for field, following in zip(fields, [*fields[1:], None], strict=True):
        if following is None or following.owner != first.owner:
            yield first.owner, first.start, field.start + field.size
            first = following if following is not None else first
