"""Breaks a valid GGUF file in one place at a time: the cases of tests/hostile.

`broken` gives every case of a file: each field set to each value that has hurt a reader somewhere, each entry dropped,
doubled or retyped, and the file cut at every border.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.gguf_builder import BOOL, FLOAT32, INT32, STRING, UINT8, UINT64, kv, kv_array
from tests.hostile.fields import Field, entries, header_fields

_U32 = (0, 1, 2, 5, 9, 13, 41, 255, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_U64 = (
    0,
    1,
    31,
    1 << 16,
    1 << 31,
    1 << 32,
    (1 << 42) + 1,
    1 << 60,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 32,
    (1 << 64) - 1,
)
_F32 = (float("nan"), float("inf"), float("-inf"), 0.0, -1.0, 1e-45, 3e38, 1e-30)
_MANY = 4  # elements of a long array that are broken; the others are alike


@dataclass(frozen=True)
class Case:
    """One broken file. `owner`: the key or tensor that was broken, or "" if the break has no owner."""

    name: str
    owner: str
    data: bytes


def broken(data: bytes) -> Iterator[Case]:
    """Every case of a valid file, in a fixed order."""
    fields = list(_thinned(header_fields(data)))
    for field in fields:
        for value in dict.fromkeys(_values(data, field)):
            if value != data[field.start : field.start + field.size]:
                name = f"{field.owner or 'file'}: {field.what} at {field.start} = {value[:16].hex()}"
                yield Case(name, field.owner, data[: field.start] + value + data[field.start + field.size :])
    for cut in sorted({field.start for field in fields} | {len(data) - 1, fields[-1].start + fields[-1].size}):
        yield Case(f"cut at {cut}", "", data[:cut])
    n_tensors, n_kv = struct.unpack_from("<QQ", data, 8)
    for index, (owner, start, end) in enumerate(entries(data)):
        is_key = index < n_kv
        for name, body, by in (("dropped", b"", -1), ("doubled", data[start:end] * 2, 1)):
            head = struct.pack("<QQ", n_tensors + by * (not is_key), n_kv + by * is_key)
            yield Case(f"{owner}: {name}", owner, padded(data, data[:8] + head + data[24:start] + body, end))
        if is_key:
            for kind, entry in _retyped(owner):
                yield Case(f"{owner}: as {kind}", owner, padded(data, data[:start] + entry, end))


def _thinned(fields: Iterable[Field]) -> Iterator[Field]:
    """Leaves out most elements of long arrays."""
    seen: dict[tuple[str, str], int] = {}
    for field in fields:
        key = (field.owner, field.what)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= _MANY:
            yield field


def _values(data: bytes, field: Field) -> Iterator[bytes]:
    """What the field becomes, of the same size."""
    if field.what in ("text", "magic"):
        yield b"\xff" * field.size
        yield bytes(field.size)
        return
    if field.size == 1:
        yield from (b"\0", b"\2", b"\x80", b"\xff")
        return
    now = int.from_bytes(data[field.start : field.start + field.size], "little")
    top = 1 << 8 * field.size
    for number in (*(_U64 if field.size == 8 else _U32), now - 1, now + 1, now * 2, now ^ 8, top - now):
        yield (number % top).to_bytes(field.size, "little")
    if field.what == "value" and field.size == 4:
        yield from (struct.pack("<f", number) for number in _F32)


def _retyped(key: str) -> Iterator[tuple[str, bytes]]:
    """The key with a value of another type."""
    yield "uint8", kv(key, UINT8, 3)
    yield "int32", kv(key, INT32, -7)
    yield "uint64", kv(key, UINT64, 1 << 63)
    yield "float32", kv(key, FLOAT32, 1.5)
    yield "bool", kv(key, BOOL, True)
    yield "string", kv(key, STRING, "llama")
    yield "empty string", kv(key, STRING, "")
    yield "array of int32", kv_array(key, INT32, [1, 2])
    yield "array of string", kv_array(key, STRING, ["a", "b"])
    yield "empty array", kv_array(key, INT32, [])


def padded(data: bytes, head: bytes, end: int) -> bytes:
    """The changed part `head`, then the file from `end` on, with the tensor data at its alignment again."""
    last = header_fields(data)[-1]
    header_end = last.start + last.size
    body = head + data[end:header_end]
    return body + bytes(-len(body) % 32) + data[header_end + -header_end % 32 :]
