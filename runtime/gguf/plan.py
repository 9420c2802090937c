"""The header of a GGUF file to be."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from iqrun.gguf import keys
from iqrun.gguf.header import TensorInfo
from iqrun.gguf.keys import DTYPES, FLOATS, INTEGERS, ValueType
from iqrun.gguf.metadata import Metadata, StringArray
from iqrun.gguf.tensor_type import find

Scalar = int | float | bool | str | bytes
ArrayLike = Sequence[Any] | npt.NDArray[Any] | StringArray


class GGUFPlan:
    """The header of a file to be: metadata and tensor descriptions. Its size, and the file's, are known exactly."""

    def __init__(self, *, alignment: int = keys.DEFAULT_ALIGNMENT) -> None:
        """`alignment`: tensor data begins at multiples of it; a power of two from 8 to 65536."""
        if not keys.MIN_ALIGNMENT <= alignment <= keys.MAX_ALIGNMENT or alignment & (alignment - 1):
            raise ValueError(f"alignment {alignment} is not a power of two from 8 to 65536")
        self.alignment = alignment
        self._values: dict[str, bytes] = {}  # key -> type code and value, as stored
        self._tensors: dict[str, TensorInfo] = {}
        self._data_bytes = 0
        if alignment != keys.DEFAULT_ALIGNMENT:
            self.set(keys.ALIGNMENT, alignment, ValueType.UINT32)

    def set(self, key: str, value: Scalar, kind: ValueType) -> None:
        """Sets a scalar; a key that is there keeps its place.

        Raises:
            ValueError: the value does not fit the type.
        """
        self._values[_checked_key(key)] = _u32(kind) + _scalar(value, kind)

    def set_array(self, key: str, values: ArrayLike, item: ValueType) -> None:
        """Sets an array of `item`; strings may be str or bytes.

        Raises:
            ValueError: a value does not fit the type.
        """
        if item is ValueType.ARRAY:
            raise ValueError("arrays of arrays cannot be written")
        if item is ValueType.STRING:
            raws = values.iter_raw() if isinstance(values, StringArray) else values
            body = b"".join(_scalar(value, item) for value in raws)
        else:
            body = _numbers(values, item)
        self._values[_checked_key(key)] = _u32(ValueType.ARRAY) + _u32(item) + _u64(len(values)) + body

    def copy(self, metadata: Metadata, key: str) -> None:
        """Carries a value over from another file, byte for byte."""
        self._values[_checked_key(key)] = _u32(metadata.entry(key).kind) + metadata.raw_value(key)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def remove(self, key: str) -> None:
        """Drops a key, if it is there."""
        self._values.pop(key, None)

    def without_tensors(self) -> GGUFPlan:
        """A copy of the metadata, without tensors."""
        copy = GGUFPlan(alignment=self.alignment)
        copy._values = dict(self._values)
        return copy

    def add_tensor(self, name: str, shape: Sequence[int], type_id: int) -> TensorInfo:
        """Describes the next tensor; `shape` in GGUF order, row length first.

        Returns:
            The description; its `offset` is relative to the tensor data.

        Raises:
            FormatError: the type is unknown.
            ValueError: the name or shape cannot be stored.
        """
        kind = find(type_id)
        size = len(_name_bytes(name))
        if not 1 <= size <= keys.MAX_TENSOR_NAME_BYTES or name in self._tensors:
            raise ValueError(f"tensor name {name!r} is empty, longer than {keys.MAX_TENSOR_NAME_BYTES} bytes or taken")
        if not 1 <= len(shape) <= keys.MAX_DIMS or min(shape) < 1 or prod(shape) > keys.MAX_ELEMENTS:
            raise ValueError(f"tensor {name!r} cannot have the shape {tuple(shape)}")
        if shape[0] % kind.block_weights:
            raise ValueError(f"tensor {name!r} with rows of {shape[0]} cannot be stored as {kind.name}")
        n_rows = prod(shape[1:])
        n_bytes = n_rows * kind.row_bytes(shape[0])
        info = TensorInfo(name, kind, tuple(shape), n_rows, n_bytes, self._data_bytes)
        self._tensors[name] = info
        self._data_bytes = _aligned(self._data_bytes + n_bytes, self.alignment)
        return info

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """The tensors in the order in which their data follows."""
        return tuple(self._tensors.values())

    @property
    def file_bytes(self) -> int:
        """Size of the finished file."""
        return len(self.encode()) + self._data_bytes

    def data_end(self, n_tensors: int) -> int:
        """Where the data of the first `n_tensors` tensors ends in the file, padding included."""
        ends = [info.offset for info in self.tensors] + [self._data_bytes]
        return len(self.encode()) + ends[n_tensors]

    def encode(self) -> bytes:
        """The header, padded to where the tensor data begins."""
        parts = [keys.MAGIC, _u32(keys.WRITE_VERSION), _u64(len(self._tensors)), _u64(len(self._values))]
        for key, value in self._values.items():
            parts += [_string(_name_bytes(key)), value]
        for info in self._tensors.values():
            dims = struct.pack(f"<I{len(info.shape)}Q", len(info.shape), *info.shape)
            parts += [_string(_name_bytes(info.name)), dims, struct.pack("<IQ", info.type_id, info.offset)]
        header = b"".join(parts)
        return header + bytes(_aligned(len(header), self.alignment) - len(header))


def _aligned(n_bytes: int, alignment: int) -> int:
    return -(-n_bytes // alignment) * alignment


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def _string(raw: bytes) -> bytes:
    return _u64(len(raw)) + raw


def _name_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _checked_key(key: str) -> str:
    if not 1 <= len(_name_bytes(key)) <= keys.MAX_KEY_BYTES:
        raise ValueError(f"metadata key {key[:40]!r} must have 1 to {keys.MAX_KEY_BYTES} bytes")
    return key


def _scalar(value: Scalar, kind: ValueType) -> bytes:
    if kind is ValueType.STRING:
        if isinstance(value, str):
            return _string(value.encode("utf-8", "surrogateescape"))
        if isinstance(value, bytes):
            return _string(value)
        raise ValueError(f"{value!r} is not a string")
    if kind is ValueType.ARRAY or isinstance(value, (str, bytes)):
        raise ValueError(f"{value!r} is not a {kind.name.lower()}")
    return _numbers([value], kind)


def _numbers(values: ArrayLike, kind: ValueType) -> bytes:
    """Values as stored; refuses those that the type cannot hold."""
    array = np.asarray(values)
    with np.errstate(over="ignore"):
        stored = array.astype(DTYPES[kind], casting="unsafe") if kind not in INTEGERS else _integers(array, kind)
    if kind is ValueType.BOOL and not np.isin(array, (0, 1)).all():
        raise ValueError("a bool must be true or false")
    if kind not in FLOATS or np.isfinite(stored).all() or not np.isfinite(array).all():
        return stored.tobytes()
    raise ValueError(f"a value is too large for {kind.name.lower()}")


def _integers(array: npt.NDArray[Any], kind: ValueType) -> npt.NDArray[Any]:
    limits = np.iinfo(DTYPES[kind])
    if array.size and (array.dtype.kind not in "iu" or array.min() < limits.min or array.max() > limits.max):
        raise ValueError(f"a value is not a whole number from {limits.min} to {limits.max} ({kind.name.lower()})")
    return array.astype(DTYPES[kind])
