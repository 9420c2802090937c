"""Making a native context: what it needs of memory, and what would fit if that is too much."""

from __future__ import annotations

from typing import Any, Literal

from iqrun import formats, machine
from iqrun.engine.lowering import NativeProgram
from iqrun.errors import ResourceError
from iqrun.native import check, ffi, lib

KVType = Literal["f16", "f32"]

N_BATCH = 512
_INVALID = 1 << 63  # iq_context_bytes of what iq_context_create refuses, with a better explanation than ours


def context_params(n_ctx: int, n_threads: int, kv_type: str, n_batch: int, n_seq: int) -> Any:
    """The checked ``iq_context_params``; a batch is never larger than the context.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """
    ranges = {
        "n_ctx": (n_ctx, 1 << 30),
        "n_threads": (n_threads, 512),
        "n_batch": (n_batch, 1 << 16),
        "n_seq": (n_seq, 1 << 12),
    }
    for name, (value, high) in ranges.items():
        if not 1 <= value <= high:
            raise ValueError(f"{name} is {value}, but must be from 1 to {high}")
    if kv_type not in ("f16", "f32"):
        raise ValueError(f"kv_type is {kv_type!r}, but must be 'f16' or 'f32'")
    params = ffi.new("iq_context_params *")
    params.n_ctx, params.n_batch, params.n_seq, params.n_threads = n_ctx, min(n_batch, n_ctx), n_seq, n_threads
    params.kv_type = formats.by_name(kv_type).id
    return params


def create_context(native_program: NativeProgram, params: Any) -> Any:
    """An ``iq_context *`` that is freed when it is collected.

    Raises:
        ResourceError: there is not enough memory, or no thread can be started; the message says what would fit.
    """
    _check_memory(native_program, params)
    out = ffi.new("iq_context **")
    try:
        check(lib.iq_context_create, native_program.handle, params, out)
    except MemoryError as error:
        raise ResourceError(str(error)) from error

    def free(context: Any, keep: NativeProgram = native_program) -> None:
        lib.iq_context_free(context)  # `keep`: the program must outlive its contexts, whoever collects them

    return ffi.gc(out[0], free)


def _check_memory(native_program: NativeProgram, params: Any) -> None:
    """Raises ResourceError, saying what would fit, if the context is larger than the memory that is free."""
    free = machine.available_memory()
    needed = _bytes_used(native_program, params)
    if free is None or needed <= free or needed >= _INVALID:
        return
    raise ResourceError(
        f"a context of {params.n_ctx} tokens needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB of memory are free: "
        + _advice(native_program, params, free)
    )


def _bytes_used(native_program: NativeProgram, params: Any) -> int:
    """Memory of a context, without the rows of logits that are reserved for a whole batch but hardly ever written."""
    reserved: int = lib.iq_context_bytes(native_program.handle, params)
    unused: int = 4 * (params.n_batch - 1) * native_program.program.logits.n_cols
    return reserved - unused


def _advice(native_program: NativeProgram, params: Any, free: int) -> str:
    """The largest n_ctx that fits, by bisection."""
    low, high = 0, int(params.n_ctx)
    while high - low > 1:
        params.n_ctx = (low + high) // 2
        if _bytes_used(native_program, params) <= free:
            low = params.n_ctx
        else:
            high = params.n_ctx
    return f"n_ctx={low} would fit" if low >= 64 else "close other programs, or use a machine with more memory"
