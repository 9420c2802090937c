"""The state of a session as bytes: a header, the tokens, their keys and values, and a checksum over all.

::

    magic      8 bytes   "iqrun-kv"
    version    u32       1
    kv_type    u32       ggml type id of the cached values
    n_tokens   u64
    n_cache    u64       bytes of keys and values
    model      32 bytes  fingerprint of the model
    tokens     i32 [n_tokens]
    cache      n_cache bytes, as iq_seq_export lays them out
    checksum   16 bytes  BLAKE2b of everything before

Nothing in it is trusted: sizes are compared before anything is read, and the engine can run with any values.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from iqrun import formats
from iqrun.engine.lowering import NativeProgram
from iqrun.errors import StateError
from iqrun.program import Program, Weight

Bytes: TypeAlias = bytes | bytearray | memoryview

_MAGIC = b"iqrun-kv"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQ32s")
_CHECKSUM_BYTES = 16
_SAMPLE_BYTES = 64

_fingerprints: WeakKeyDictionary[Program, bytes] = WeakKeyDictionary()


class Header(NamedTuple):
    """What a state says about itself."""

    magic: bytes
    version: int
    kv_type: int
    n_tokens: int
    n_cache: int
    model: bytes


def pack(native_program: NativeProgram, kv_type: str, tokens: list[int], cache: npt.NDArray[np.uint8]) -> bytes:
    """The bytes of a state.

    Args:
        native_program: the model.
        kv_type: type of the cached keys and values.
        tokens: those that the cache holds.
        cache: their keys and values, as ``iq_seq_export`` lays them out.
    """
    model = fingerprint(native_program.program)
    header = _HEADER.pack(_MAGIC, _VERSION, formats.by_name(kv_type).id, len(tokens), cache.size, model)
    data = b"".join([header, np.array(tokens, "<i4").tobytes(), cache.data])
    return data + _checksum(data)


def unpack(
    data: Bytes, native_program: NativeProgram, kv_type: str
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """The tokens of a state, and their keys and values: views of `data`.

    Args:
        data: the bytes.
        native_program: the model that they must belong to.
        kv_type: the type that they must have.

    Raises:
        StateError: the data are damaged, from another model or from another version.
    """
    view = memoryview(data).cast("B")
    header = read_header(view)
    if header.model != fingerprint(native_program.program):
        raise StateError("this state was saved with another model: load it with the file that it was made with")
    if header.kv_type != formats.by_name(kv_type).id:
        raise StateError(
            f"this state has another type of keys and values than {kv_type}: load the model with the kv_type that it "
            "was saved with"
        )
    body = view[: len(view) - _CHECKSUM_BYTES]
    if _checksum(body) != view[len(body) :]:
        raise StateError("this state is damaged: its checksum does not match")
    tokens_end = _HEADER.size + 4 * header.n_tokens
    tokens = np.frombuffer(view[_HEADER.size : tokens_end], "<i4").astype(np.int32)
    return tokens, np.frombuffer(body[tokens_end:], np.uint8)


def read_header(data: Bytes) -> Header:
    """The header of a state whose size is right.

    Raises:
        StateError: this is no state, it is cut short or too long, or from another version.
    """
    if len(data) < _HEADER.size + _CHECKSUM_BYTES or bytes(data[:8]) != _MAGIC:
        raise StateError("this is not a state that iqrun saved, or it is cut short")
    header = Header(*_HEADER.unpack_from(data))
    if header.version != _VERSION:
        raise StateError(f"this state has version {header.version}, but this iqrun reads version {_VERSION}")
    expected = _HEADER.size + 4 * header.n_tokens + header.n_cache + _CHECKSUM_BYTES
    if len(data) != expected:
        raise StateError(f"this state is damaged: it has {len(data)} bytes, but says that it has {expected}")
    return header


def fingerprint(program: Program) -> bytes:
    """32 bytes that differ between models: over all operations with their numbers, and a sample of each weight."""
    known = _fingerprints.get(program)
    if known is None:
        digest = blake2b(digest_size=32)
        digest.update(f"{program.arch} {program.n_vocab} {program.n_layer}\n".encode())
        for op in program.ops:
            buffers = [(b.index, b.n_cols, b.rows) for b in (*op.src, *op.dst)]
            numbers = (op.kind, op.add, op.rope_halves, op.layer, op.n_head, op.n_head_kv, op.head_dim, op.n_rot, op.f)
            digest.update(repr((numbers, buffers)).encode())
        for weight in program.weights:
            digest.update(_sample(weight))
        known = _fingerprints[program] = digest.digest()
    return known


def _sample(weight: Weight) -> bytes:
    """Its name, type and shape, and bytes from its beginning, middle and end: quick, though the weights are large."""
    data = weight.data.reshape(-1)
    middle = data.size // 2
    parts = (data[:_SAMPLE_BYTES], data[middle : middle + _SAMPLE_BYTES], data[-_SAMPLE_BYTES:])
    return b"".join([f"{weight}".encode(), *(part.tobytes() for part in parts)])


def _checksum(data: Bytes) -> bytes:
    return blake2b(data, digest_size=_CHECKSUM_BYTES).digest()
