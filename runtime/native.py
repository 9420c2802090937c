"""The native core as Python sees it: the only importer of `iqrun._native`.

Turns an `iq_status` into an exception and buffers into checked pointers. Everything else in iqrun calls `check(...)`
around a function of `lib` and passes arrays through `pointer(...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from os import environ
from typing import Any

import numpy as np
import numpy.typing as npt

from iqrun.errors import (
    CancelledError,
    ContextFullError,
    FormatError,
    GGUFError,
    IqrunError,
    ResourceError,
    UnsupportedModelError,
)

try:
    import iqrun._native as _native
except ImportError as error:  # an interrupted build, or another platform's wheel
    raise ImportError(
        f"iqrun's native module is missing or was built for another machine ({error}); reinstall with: pip install -e ."
    ) from error

ffi: Any = _native.ffi
lib: Any = _native.lib

_EXCEPTIONS: dict[int, type[Exception]] = {
    lib.IQ_ERR_ARGUMENT: ValueError,
    lib.IQ_ERR_MEMORY: MemoryError,
    lib.IQ_ERR_FORMAT: FormatError,
    lib.IQ_ERR_UNSUPPORTED: UnsupportedModelError,
    lib.IQ_ERR_KV_FULL: ContextFullError,
    lib.IQ_ERR_CANCELLED: CancelledError,
    lib.IQ_ERR_THREAD: ResourceError,
    lib.IQ_ERR_READ: GGUFError,
}


def check(function: Callable[..., int], *args: Any) -> None:
    """Calls ``function(*args, error)`` and raises the exception of its status, with the core's sentence."""
    error = ffi.new("iq_error *")
    status = function(*args, error)
    if status != lib.IQ_OK:
        text = ffi.string(error.text).decode("utf-8", "replace")
        raise _EXCEPTIONS.get(status, IqrunError)(text or f"native status {status}")


def pointer(array: npt.NDArray[Any], ctype: str, *, writable: bool = False) -> Any:
    """A pointer into a C-contiguous array, e.g. ``pointer(x, "float *")``; the caller keeps the array alive.

    Raises:
        ValueError: if the array is not C-contiguous, or read-only where it must be writable.
    """
    if not array.flags.c_contiguous or (writable and not array.flags.writeable):
        raise ValueError(f"the array must be C-contiguous{' and writable' if writable else ''}: call .copy() on it")
    if array.size == 0:
        return ffi.cast(ctype, ffi.NULL)
    return ffi.cast(
        ctype, ffi.from_buffer("unsigned char[]", array.view(np.uint8).reshape(-1), require_writable=writable)
    )


@cache
def kernels(isa: str | None = None) -> Any:
    """The kernel table of an instruction set: the one named, else ``IQRUN_ISA``, else the best of this machine.

    Raises:
        UnsupportedModelError: the name is unknown, not in this build, or does not run on this machine.
    """
    name = isa if isa is not None else environ.get("IQRUN_ISA", "")
    out = ffi.new("const iq_kernels **")
    check(lib.iq_kernels_find, name.encode("utf-8"), out)
    check(lib.iq_kernels_self_test, out[0])
    return out[0]


def isa_name(isa: str | None = None) -> str:
    """The name of the instruction set that `kernels(isa)` chooses."""
    name: str = ffi.string(lib.iq_kernels_isa(kernels(isa))).decode()
    return name


def built_isas() -> dict[str, bool]:
    """Instruction sets built into this library, best first, and whether each runs on this machine."""
    found: dict[str, bool] = {}
    while (name := lib.iq_isa_at(len(found))) != ffi.NULL:
        found[ffi.string(name).decode()] = bool(lib.iq_isa_runs_here(name))
    return found
