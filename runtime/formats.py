"""Storage types: their names, sizes, and conversion from and to float32.

The table itself lives in the native core (``csrc/format/registry.c``); this is its Python view. A row of a tensor is
stored as ``row_meta_bytes`` (a row scale, for some types) and then its blocks, so that::

    row_bytes = row_meta_bytes + n_cols / block_weights * block_bytes

Conversion splits the rows among threads; the core releases the GIL, and the result does not depend on their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.errors import FormatError
from iqrun.native import check, ffi, lib, pointer

Effort: TypeAlias = Literal["fast", "normal", "best"]

EFFORTS: Mapping[str, int] = {"fast": lib.IQ_EFFORT_FAST, "normal": lib.IQ_EFFORT_NORMAL, "best": lib.IQ_EFFORT_BEST}

# Weights per task: large enough to hide a task's cost, small enough to keep all threads busy to the end.
_TASK_WEIGHTS = 1 << 17


@dataclass(frozen=True)
class Format:
    """A storage type of tensors.

    Attributes:
        name: as files and people write it, e.g. ``"IQ3_K"``.
        id: ggml type id, as stored in GGUF.
        file_type: ``general.file_type`` of a file made mostly of this type.
        block_weights: weights per block: 1, 32 or 256.
        block_bytes: bytes per block.
        row_meta_bytes: bytes in front of each row's blocks.
        can_encode: whether `encode` writes it.
    """

    name: str
    id: int
    file_type: int
    block_weights: int
    block_bytes: int
    row_meta_bytes: int
    can_encode: bool

    @property
    def bpw(self) -> float:
        """Bits per weight of the blocks; `row_meta_bytes` per row come on top."""
        return 8 * self.block_bytes / self.block_weights

    def row_bytes(self, n_cols: int) -> int:
        """Bytes of one row of `n_cols` weights.

        Raises:
            FormatError: if the row is not a whole number of blocks, or too long for any file.
        """
        if n_cols <= 0 or n_cols % self.block_weights:
            raise FormatError(
                f"{self.name} stores whole blocks of {self.block_weights} weights, which a row of {n_cols} "
                f"does not fill: {_narrower_types(n_cols)}"
            )
        row_bytes = self.row_meta_bytes + n_cols // self.block_weights * self.block_bytes
        if row_bytes >= 1 << 63:
            raise FormatError(f"a row of {n_cols} weights is too long for any file: check the tensor's shape")
        return row_bytes


def _narrower_types(n_cols: int) -> str:
    if n_cols <= 0:
        return "give at least one column"
    if n_cols % 32 == 0:
        return "use a type with blocks of 32, such as Q8_0, Q6_0 or IQ4_NL, or F16"
    return "use F16, BF16 or F32"


def _read_registry() -> Iterator[Format]:
    for index in range(lib.iq_format_count()):
        info = lib.iq_format_at(index)
        yield Format(
            name=ffi.string(info.name).decode("ascii").upper(),
            id=info.id,
            file_type=info.file_type,
            block_weights=info.block_weights,
            block_bytes=info.block_bytes,
            row_meta_bytes=info.row_meta_bytes,
            can_encode=bool(info.can_encode),
        )


FORMATS: Mapping[str, Format] = MappingProxyType({row.name: row for row in _read_registry()})
"""Every type that iqrun handles, by name."""

_BY_ID: Mapping[int, Format] = {row.id: row for row in FORMATS.values()}

# Types that files may hold and iqrun does not handle, so that errors can call them by name.
_UNSUPPORTED: Mapping[int, str] = MappingProxyType(
    {
        **{4: "Q4_2", 5: "Q4_3", 9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S"},
        **{21: "IQ3_S", 22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M"},
        **{31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 34: "TQ1_0", 35: "TQ2_0", 36: "I2_S", 39: "MXFP4"},
        **{40: "NVFP4", 41: "Q1_0", 42: "Q2_0", 134: "IQ1_BN", 135: "IQ2_BN", 136: "Q8_K64", 142: "IQ2_TN"},
        **{143: "IQ1_TN", 151: "Q8_KV", 153: "IQ2_KT", 154: "IQ3_KT", 155: "IQ4_KT", 158: "IQ1_KT"},
        # interleaved rows
        **{202: "Q4_0_R8", 206: "Q5_0_R4", 208: "Q8_0_R8", 210: "Q2_K_R4", 211: "Q3_K_R4", 212: "Q4_K_R4"},
        **{213: "Q5_K_R4", 214: "Q6_K_R4", 216: "IQ2_XXS_R4", 217: "IQ2_XS_R4", 218: "IQ3_XXS_R4", 219: "IQ1_S_R4"},
        **{220: "IQ4_NL_R4", 221: "IQ3_S_R4", 222: "IQ2_S_R4", 223: "IQ4_XS_R8", 229: "IQ1_M_R4", 230: "BF16_R16"},
        **{233: "Q6_0_R4", 335: "IQ2_BN_R4", 337: "IQ2_K_R4", 338: "IQ3_K_R4", 339: "IQ4_K_R4", 340: "IQ5_K_R4"},
        **{344: "IQ4_KS_R4", 352: "IQ5_KS_R4", 353: "MXFP4_R8", 397: "Q8_K_R16", 398: "Q8_KV_R8", 399: "Q8_K_R8"},
    }
)


def known_names() -> Mapping[int, str]:
    """Names, by ggml type id, of types that iqrun cannot handle but can name."""
    return _UNSUPPORTED


def by_id(type_id: int) -> Format:
    """The type with a ggml type id.

    Raises:
        FormatError: if iqrun does not handle it; the message names the type where it can.
    """
    if (format_ := _BY_ID.get(type_id)) is not None:
        return format_
    if (name := _UNSUPPORTED.get(type_id)) is None:
        raise FormatError(f"{type_id} is not a known ggml type id: the file is damaged, or newer than this iqrun")
    raise FormatError(
        f"type {name} ({type_id}) is not supported: quantize the model again, from its F16 or BF16 file, to one that is"
    )


def by_name(name: str) -> Format:
    """The type with a name, in upper or lower case.

    Raises:
        FormatError: if there is none; the message suggests the nearest and lists all.
    """
    if (format_ := FORMATS.get(name.upper())) is not None:
        return format_
    from difflib import get_close_matches

    near = get_close_matches(name.upper(), FORMATS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    verb = "not supported" if name.upper() in _UNSUPPORTED.values() else "not a known type"
    raise FormatError(f"{name!r} is {verb}: {hint}The types are {', '.join(FORMATS)}")


def encode(
    x: npt.NDArray[np.float32],
    ggml_type: str | int | Format,
    importance: npt.NDArray[np.float32] | None = None,
    effort: Effort = "normal",
    n_threads: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Encodes float32 rows.

    Args:
        x: float32 (rows, cols), or (cols,) for a single row; C-contiguous, finite.
        ggml_type: name, id or `Format`.
        importance: float32 (cols,), the weight >= 0 of each column's squared error; None means that all count alike.
        effort: how hard to search: "fast", "normal" or "best".
        n_threads: threads to use, by default one per available CPU. The bytes do not depend on it.

    Returns:
        uint8 (rows, row_bytes).

    Raises:
        FormatError: if the type cannot be written, the columns do not fill whole blocks, an array has the wrong dtype,
            shape or layout, or a value is NaN, infinite or (importance) negative.
    """
    format_ = _resolve(ggml_type)
    if not format_.can_encode:
        writable = ", ".join(row.name for row in FORMATS.values() if row.can_encode)
        raise FormatError(f"iqrun reads {format_.name} but does not write it: choose one of {writable}")
    if effort not in EFFORTS:
        raise FormatError(f"effort {effort!r} is none of {', '.join(EFFORTS)}")
    rows = _check_weights(x)
    n_rows, n_cols = rows.shape
    out = np.empty((n_rows, format_.row_bytes(n_cols)), np.uint8)
    if importance is not None:
        _check_importance(importance, n_cols)
    importance_pointer = ffi.NULL if importance is None else pointer(importance, "const float *")

    def encode_rows(first: int, last: int) -> None:
        src, dst = pointer(rows[first:last], "const float *"), pointer(out[first:last], "void *", writable=True)
        try:
            check(lib.iq_quantize_rows, format_.id, src, last - first, n_cols, importance_pointer, EFFORTS[effort], dst)
        except FormatError:
            _check_finite(rows, first, last)
            raise

    _for_row_ranges(encode_rows, n_rows, n_cols, n_threads)
    return out


def decode(
    q: npt.NDArray[np.uint8], ggml_type: str | int | Format, n_cols: int, n_threads: int | None = None
) -> npt.NDArray[np.float32]:
    """Decodes rows to float32.

    Args:
        q: uint8 (rows, row_bytes), or the bytes of whole rows one after the other; C-contiguous, any alignment.
        ggml_type: name, id or `Format`.
        n_cols: weights per row.
        n_threads: threads to use, by default one per available CPU.

    Returns:
        float32 (rows, n_cols). Any bytes decode to something: what a damaged scale makes may be infinite or NaN.

    Raises:
        FormatError: if the array has the wrong dtype, shape or layout, or does not hold whole rows.
    """
    format_ = _resolve(ggml_type)
    row_bytes = format_.row_bytes(n_cols)
    rows = _check_rows(q, format_, n_cols, row_bytes)
    out = np.empty((len(rows), n_cols), np.float32)

    def decode_rows(first: int, last: int) -> None:
        src, dst = pointer(rows[first:last], "const void *"), pointer(out[first:last], "float *", writable=True)
        check(lib.iq_dequantize_rows, format_.id, src, last - first, n_cols, dst)

    _for_row_ranges(decode_rows, len(rows), n_cols, n_threads)
    return out


def _resolve(ggml_type: str | int | Format) -> Format:
    if isinstance(ggml_type, Format):
        return ggml_type
    return by_name(ggml_type) if isinstance(ggml_type, str) else by_id(ggml_type)


def _check_array(array: npt.NDArray[Any], dtype: type[np.generic], what: str) -> None:
    if not isinstance(array, np.ndarray):
        raise FormatError(f"{what} must be a numpy array, not {type(array).__name__}: call numpy.asarray on it")
    if array.dtype != dtype:
        name = np.dtype(dtype).name
        raise FormatError(f"{what} must be {name}, not {array.dtype}: call .astype(numpy.{name}) on it")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise FormatError(f"{what} must be C-contiguous and aligned: call .copy() on it")


def _check_weights(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`x` as (rows, cols)."""
    _check_array(x, np.float32, "the weights")
    if x.ndim not in (1, 2):
        raise FormatError(f"the weights must be (rows, cols) or (cols,), not of shape {x.shape}: reshape them")
    return x.reshape(1, -1) if x.ndim == 1 else x


def _check_importance(importance: npt.NDArray[np.float32], n_cols: int) -> None:
    _check_array(importance, np.float32, "the importance")
    if importance.shape != (n_cols,):
        raise FormatError(
            f"the importance must have one value for each of the {n_cols} columns, not {importance.shape}"
        )
    wrong = np.flatnonzero(~(np.isfinite(importance) & (importance >= 0)))
    if len(wrong):
        raise FormatError(f"the importance of column {wrong[0]} is {importance[wrong[0]]}: it must be finite and >= 0")


def _check_finite(rows: npt.NDArray[np.float32], first: int, last: int) -> None:
    """Raises with the place of the first NaN or infinity in rows[first:last], if there is one."""
    for row in range(first, last):
        wrong = np.flatnonzero(~np.isfinite(rows[row]))
        if len(wrong):
            value = rows[row, wrong[0]]
            raise FormatError(
                f"the weight in row {row}, column {wrong[0]} is {value}: only finite weights can be encoded"
            )


def _check_rows(q: npt.NDArray[np.uint8], format_: Format, n_cols: int, row_bytes: int) -> npt.NDArray[np.uint8]:
    """`q` as (rows, row_bytes)."""
    _check_array(q, np.uint8, "the encoded rows")
    whole = q.shape[1] == row_bytes if q.ndim == 2 else q.ndim == 1 and q.size % row_bytes == 0
    if not whole:
        raise FormatError(
            f"rows of {n_cols} weights in {format_.name} have {row_bytes} bytes each, "
            f"which an array of shape {q.shape} does not hold: check the type and the number of columns"
        )
    return q.reshape(-1, row_bytes)


def _for_row_ranges(work: Callable[[int, int], None], n_rows: int, n_cols: int, n_threads: int | None) -> None:
    """Calls ``work(first, last)`` on ranges that cover all rows; the first range that failed raises."""
    if n_threads is not None and n_threads < 1:
        raise FormatError(f"n_threads is {n_threads}: it must be at least 1")
    step = max(1, _TASK_WEIGHTS // n_cols)
    ranges = [(first, min(first + step, n_rows)) for first in range(0, n_rows, step)]
    n_threads = min(n_threads or _available_cpus(), len(ranges))
    if n_threads <= 1:
        for first, last in ranges:
            work(first, last)
        return
    from concurrent.futures import ThreadPoolExecutor  # late: it costs 15 ms at start-up

    with ThreadPoolExecutor(n_threads) as pool:
        tasks = [pool.submit(work, first, last) for first, last in ranges]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _available_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
