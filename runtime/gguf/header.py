"""Parses the header of one GGUF file: nothing in it is believed before it was compared with the file's size.

::

    "GGUF"  u32 version  u64 n_tensors  u64 n_kv
    n_kv  x { string key;  u32 type;  value }            string: u64 length, bytes
    n_tensors x { string name;  u32 n_dims;  u64 dims[n_dims];  u32 type;  u64 offset }
    padding to general.alignment, then the tensor data, to which the offsets are relative
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from iqrun.errors import FormatError, GGUFError, shown
from iqrun.formats import Format
from iqrun.gguf import keys
from iqrun.gguf.cursor import Cursor
from iqrun.gguf.keys import DTYPES, ValueType
from iqrun.gguf.metadata import Bytes, Entry, Metadata
from iqrun.gguf.tensor_type import TensorType, find
from iqrun.native import check, lib, pointer

_MIN_KV_BYTES = 8 + 1 + 4 + 1  # key length, one character, type, a byte of value
_MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8
_SIZES = {kind: np.dtype(name).itemsize for kind, name in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor stands and how it is stored.

    Attributes:
        type: the storage type; `type_id` is its ggml id, `format` its codec, or None if iqrun cannot handle it.
        shape: GGUF order: ``(n_cols, n_rows, ...)``, row length first.
        n_rows: product of all dimensions but the first.
        n_bytes: size of the data.
        offset: where the data begins in the file, absolute.
        file_index: which shard of a split model holds it.
    """

    name: str
    type: TensorType
    shape: tuple[int, ...]
    n_rows: int
    n_bytes: int
    offset: int
    file_index: int = 0

    @property
    def n_cols(self) -> int:
        """Weights per row."""
        return self.shape[0]

    @property
    def type_id(self) -> int:
        """The storage type's ggml id."""
        return self.type.id

    @property
    def format(self) -> Format | None:
        """The codec of the storage type, or None if iqrun cannot handle it."""
        return self.type.format

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.type.row_bytes(self.n_cols)

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return self.n_cols * self.n_rows


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of one file says."""

    version: int
    alignment: int
    metadata: Metadata
    tensors: dict[str, TensorInfo]


def parse_header(data: Bytes, path: str, file_index: int = 0) -> Header:
    """Reads and checks the header of the file whose bytes are `data`.

    Raises:
        GGUFError: naming the path, the key or tensor, and the byte where the fault stands.
    """
    cursor = Cursor(data, path)
    version = _read_version(cursor)
    n_tensors, n_kv = cursor.u64("the tensor count"), cursor.u64("the key count")
    _check_count(cursor, "tensors", n_tensors, keys.MAX_TENSORS, _MIN_TENSOR_BYTES)
    _check_count(cursor, "metadata keys", n_kv, keys.MAX_KEYS, _MIN_KV_BYTES)
    metadata = _read_metadata(cursor, n_kv)
    alignment = _alignment(metadata, path)
    infos = [_read_tensor(cursor, alignment, file_index) for _ in range(n_tensors)]
    data_start = -(-cursor.offset // alignment) * alignment
    return Header(version, alignment, metadata, _place_tensors(infos, data_start, len(data), path))


def _read_version(cursor: Cursor) -> int:
    magic = cursor.data[:4].tobytes()
    if magic != keys.MAGIC:
        raise cursor.fail(f"not a GGUF file: it begins with {magic!r}, not {keys.MAGIC!r}", offset=0)
    cursor.skip(4, "the magic")
    version = cursor.u32("the version")
    if version in keys.VERSIONS:
        return version
    if int.from_bytes(version.to_bytes(4, "little"), "big") in (1, *keys.VERSIONS):
        raise cursor.fail("a big-endian GGUF file; iqrun reads little-endian ones: convert it again", offset=4)
    if version == 1:
        raise cursor.fail("GGUF version 1 is obsolete; convert the model again to get version 3", offset=4)
    raise cursor.fail(f"GGUF version {version} is unknown; iqrun reads versions 2 and 3", offset=4)


def _check_count(cursor: Cursor, what: str, count: int, limit: int, min_bytes: int) -> None:
    if count > min(limit, cursor.remaining // min_bytes):
        raise cursor.fail(
            f"the file claims {count} {what}, more than its {len(cursor.data)} bytes can hold or iqrun reads"
        )


def _read_metadata(cursor: Cursor, n_kv: int) -> Metadata:
    entries: dict[str, Entry] = {}
    for _ in range(n_kv):
        at = cursor.offset
        key = cursor.name("a metadata key", keys.MAX_KEY_BYTES)
        if key in entries:
            raise cursor.fail(f"metadata key {shown(key)} occurs twice", key=key, offset=at)
        entries[key] = _read_entry(cursor, key)
    return Metadata(cursor.data, entries, cursor.path)


def _read_entry(cursor: Cursor, key: str) -> Entry:
    kind = _value_type(cursor, key)
    start = cursor.offset
    if kind is ValueType.ARRAY:
        return _read_array(cursor, key, start)
    n_bytes = cursor.u64(f"the length of {shown(key)}") if kind is ValueType.STRING else _SIZES[kind]
    cursor.skip(n_bytes, f"the value of {shown(key)}")
    if kind is ValueType.BOOL and cursor.data[start] > 1:
        raise cursor.fail(f"metadata key {shown(key)} is a bool of value {cursor.data[start]}", key=key, offset=start)
    return Entry(kind, None, 1, start, cursor.offset)


def _read_array(cursor: Cursor, key: str, start: int) -> Entry:
    item = _value_type(cursor, key)
    if item is ValueType.ARRAY:
        raise cursor.fail(
            f"metadata key {shown(key)} is an array of arrays, which no known file needs", key=key, offset=start
        )
    count = cursor.u64(f"the element count of {shown(key)}")
    if item is ValueType.STRING:
        starts = _scan_strings(cursor, key, count)
        return Entry(ValueType.ARRAY, item, count, start, cursor.offset, starts)
    first = cursor.skip(count * _SIZES[item], f"the array {shown(key)} of {count} {item.name.lower()}")
    if item is ValueType.BOOL and count and cursor.data[first : cursor.offset].max() > 1:
        raise cursor.fail(f"metadata key {shown(key)} holds a bool that is neither 0 nor 1", key=key, offset=first)
    return Entry(ValueType.ARRAY, item, count, start, cursor.offset)


def _scan_strings(cursor: Cursor, key: str, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Where each string of an array begins, and the end; moves the cursor there."""
    if count > min(keys.MAX_STRINGS, cursor.remaining // 8):
        raise cursor.fail(
            f"the array {shown(key)} claims {count} strings, more than the file can hold or iqrun reads", key=key
        )
    starts = np.empty(count + 1, np.uint64)
    data = pointer(cursor.data, "void *")
    try:
        check(
            lib.iq_scan_strings,
            data,
            len(cursor.data),
            cursor.offset,
            count,
            pointer(starts, "uint64_t *", writable=True),
        )
    except FormatError as error:
        raise cursor.fail(f"the array {shown(key)}: {error}", key=key) from None
    cursor.offset = int(starts[-1])
    return starts


def _value_type(cursor: Cursor, key: str) -> ValueType:
    at = cursor.offset
    code = cursor.u32(f"the type of {shown(key)}")
    try:
        return ValueType(code)
    except ValueError:
        raise cursor.fail(f"metadata key {shown(key)} has the unknown value type {code}", key=key, offset=at) from None


def _alignment(metadata: Metadata, path: str) -> int:
    if keys.ALIGNMENT not in metadata:
        return keys.DEFAULT_ALIGNMENT
    entry = metadata.entry(keys.ALIGNMENT)
    value = metadata[keys.ALIGNMENT]
    if entry.kind is not ValueType.UINT32 or not isinstance(value, int):
        what = f"{keys.ALIGNMENT} is stored as {entry.describe()}, but must be uint32"
        raise GGUFError(what, path=path, key=keys.ALIGNMENT, offset=entry.start)
    if not keys.MIN_ALIGNMENT <= value <= keys.MAX_ALIGNMENT or value & (value - 1):
        what = (
            f"{keys.ALIGNMENT} is {value}, but must be a power of two from {keys.MIN_ALIGNMENT} to {keys.MAX_ALIGNMENT}"
        )
        raise GGUFError(what, path=path, key=keys.ALIGNMENT, offset=entry.start)
    return value


def _read_tensor(cursor: Cursor, alignment: int, file_index: int) -> TensorInfo:
    """One tensor description; its offset is still relative to the data."""
    at = cursor.offset
    name = cursor.name("a tensor name", keys.MAX_TENSOR_NAME_BYTES)
    shape = _read_shape(cursor, name)
    type_id = cursor.u32(f"the type of tensor {shown(name)}")
    offset = cursor.u64(f"the offset of tensor {shown(name)}")
    try:
        kind = find(type_id)
    except FormatError as error:
        raise cursor.fail(f"tensor {shown(name)} cannot be read: {error}", key=name, offset=at) from None
    if shape[0] % kind.block_weights:
        what = f"tensor {shown(name)} is {kind.name} with {shape[0]} columns, not a multiple of {kind.block_weights}"
        raise cursor.fail(what, key=name, offset=at)
    if offset % alignment:
        what = f"tensor {shown(name)} begins at {offset}, not a multiple of {alignment}"
        raise cursor.fail(what, key=name, offset=at)
    n_rows = prod(shape[1:])
    return TensorInfo(name, kind, shape, n_rows, n_rows * kind.row_bytes(shape[0]), offset, file_index)


def _read_shape(cursor: Cursor, name: str) -> tuple[int, ...]:
    at = cursor.offset
    n_dims = cursor.u32(f"the dimension count of tensor {shown(name)}")
    if not 1 <= n_dims <= keys.MAX_DIMS:
        raise cursor.fail(
            f"tensor {shown(name)} has {n_dims} dimensions, but must have 1 to {keys.MAX_DIMS}", key=name, offset=at
        )
    shape = tuple(cursor.u64(f"a dimension of tensor {shown(name)}") for _ in range(n_dims))
    if min(shape) < 1 or prod(shape) > keys.MAX_ELEMENTS:
        raise cursor.fail(f"tensor {shown(name)} has the impossible shape {shape}", key=name, offset=at)
    return shape


def _place_tensors(infos: list[TensorInfo], data_start: int, file_bytes: int, path: str) -> dict[str, TensorInfo]:
    """Turns relative offsets into absolute ones; every tensor must be inside the file and on its own."""
    tensors: dict[str, TensorInfo] = {}
    for info in infos:
        if info.name in tensors:
            raise GGUFError(f"tensor {shown(info.name)} occurs twice", path=path, key=info.name)
        offset = data_start + info.offset
        if offset + info.n_bytes > file_bytes:
            what = f"tensor {shown(info.name)} ends at byte {offset + info.n_bytes}, but the file at {file_bytes}"
            raise GGUFError(
                f"{what}: it was cut short or is damaged; fetch it again", path=path, key=info.name, offset=offset
            )
        tensors[info.name] = TensorInfo(
            info.name, info.type, info.shape, info.n_rows, info.n_bytes, offset, info.file_index
        )
    for first, second in pairwise(sorted(tensors.values(), key=lambda info: info.offset)):
        if first.offset + first.n_bytes > second.offset:
            what = f"tensors {shown(first.name)} and {shown(second.name)} overlap"
            raise GGUFError(what, path=path, key=second.name, offset=second.offset)
    return tensors
