"""Making a native context: what it needs of memory, and what would fit if that is too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from iqrun import formats, machine
from iqrun.engine.lowering import NativeProgram
from iqrun.errors import ResourceError
from iqrun.native import check, ffi, lib

if TYPE_CHECKING:
    from iqrun.engine.account import ContextAccount

KVType = Literal["f16", "q8_0", "f32"]

_KV_TYPES: tuple[str, ...] = get_args(KVType)

N_BATCH = 512
_LEAST_ROWS = 8  # of each buffer, however short the steps are
_POSITIONS = 256  # of the KV cache: what is used of it is counted in steps of so many
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
    if kv_type not in _KV_TYPES:
        raise ValueError(f"kv_type is {kv_type!r}, but must be one of {', '.join(_KV_TYPES)}")
    params = ffi.new("iq_context_params *")
    params.n_ctx, params.n_batch, params.n_seq, params.n_threads = n_ctx, min(n_batch, n_ctx), n_seq, n_threads
    params.kv_type = formats.by_name(kv_type).id
    return params


def context_bytes(native_program: NativeProgram, params: Any, n_outputs: int | None = None) -> int:
    """Bytes that a context uses, if no step wants logits of more than `n_outputs` tokens: the others' rows are reserved
    for a whole batch, but never written.
    """
    reserved: int = lib.iq_context_bytes(native_program.handle, params)
    unused = 0 if n_outputs is None else max(0, params.n_batch - n_outputs)
    return reserved - 4 * unused * native_program.program.logits.n_cols


def used_bytes(native_program: NativeProgram, params: Any, n_outputs: int | None, n_rows: int, n_positions: int) -> int:
    """Of `context_bytes`, what steps of at most `n_rows` tokens touch while `n_positions` of the KV cache are in use;
    rounded up.
    """
    part = ffi.new("iq_context_params *", params[0])
    part.n_batch = min(params.n_batch, max(n_rows, _LEAST_ROWS))
    part.n_ctx = min(params.n_ctx, -(-n_positions // _POSITIONS) * _POSITIONS)
    return context_bytes(native_program, part, n_outputs)


def create_context(native_program: NativeProgram, params: Any, account: ContextAccount | None = None) -> Any:
    """An ``iq_context *`` that is freed when it is collected; `account`: of a memory limit, for streamed weights.

    Raises:
        ResourceError: there is not enough memory, or no thread can be started; the message says what would fit.
    """
    if account is None:
        _check_memory(native_program, params)
        return _create(native_program, params, lambda: None)
    assert native_program.stream is not None
    params.small_pages = 1
    try:
        context = _create(native_program, params, account.close)
    except BaseException:
        account.close()
        raise
    native_program.stream.attach(context)
    return context


def _create(native_program: NativeProgram, params: Any, freed: Callable[[], object]) -> Any:
    """The context; `freed` is called when it is gone."""
    out = ffi.new("iq_context **")
    try:
        check(lib.iq_context_create, native_program.handle, params, out)
    except MemoryError as error:
        raise ResourceError(str(error)) from error

    def free(context: Any, keep: NativeProgram = native_program) -> None:
        lib.iq_context_free(context)  # `keep`: the program must outlive its contexts, whoever collects them
        freed()

    return ffi.gc(out[0], free)


def _check_memory(native_program: NativeProgram, params: Any) -> None:
    """Raises ResourceError, saying what would fit, if the context is larger than the memory that is free."""
    free = machine.available_memory()
    needed = context_bytes(native_program, params, n_outputs=1)
    if free is None or needed <= free or needed >= _INVALID:
        return
    raise ResourceError(
        f"a context of {params.n_ctx} tokens needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB of memory are free: "
        + _advice(native_program, params, free)
    )


def _advice(native_program: NativeProgram, params: Any, free: int) -> str:
    """The largest n_ctx that fits, by bisection."""
    low, high = 0, int(params.n_ctx)
    while high - low > 1:
        params.n_ctx = (low + high) // 2
        if context_bytes(native_program, params, n_outputs=1) <= free:
            low = params.n_ctx
        else:
            high = params.n_ctx
    return f"n_ctx={low} would fit" if low >= 64 else "close other programs, or use a machine with more memory"
