"""The extension of a wheel on an old processor, without numpy, whose own wheels need x86-64-v2.

    qemu-x86_64 -cpu qemu64 python3 tests/c/old_cpu_wheel.py _native.abi3.so TOO_NEW_ISA
    EMULATED_CPU=cortex-a53 build/aarch64/python tests/c/old_cpu_wheel.py _native.abi3.so TOO_NEW_ISA

Every format is encoded, and multiplied by the best kernels and the portable ones, which agree. TOO_NEW_ISA is refused.
"""

from __future__ import annotations

import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import Any

N_ROWS, N_COLS = 3, 512


def load(path: str) -> tuple[Any, Any]:
    """ffi and lib of the extension."""
    spec = spec_from_loader("iqrun._native", ExtensionFileLoader("iqrun._native", path))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ffi, module.lib


ffi, lib = load(sys.argv[1])
weights = ffi.new("float[]", [(i * 37 % 101 - 50) / 50 for i in range(N_ROWS * N_COLS)])
x = ffi.new("float[]", [(i * 53 % 89 - 44) / 44 for i in range(N_COLS)])


def call(function: Any, *arguments: Any) -> None:
    """Ends with the core's sentence if it refuses."""
    error = ffi.new("iq_error *")
    if function(*arguments, error) != lib.IQ_OK:
        raise SystemExit(ffi.string(error.text).decode())


def kernels(isa: bytes) -> Any:
    """The table of that name, the best one for an empty name; it has passed its self test."""
    out = ffi.new("const iq_kernels **")
    call(lib.iq_kernels_find, isa, out)
    call(lib.iq_kernels_self_test, out[0])
    return out[0]


def product(table: Any, type_id: int, rows: Any) -> list[float]:
    """The matrix times x."""
    y = ffi.new("float[]", N_ROWS)
    call(lib.iq_matmul, table, type_id, rows, N_ROWS, N_COLS, x, 1, y)
    return list(y)


def main() -> None:
    """One line: the instruction set that was chosen, and how many formats agreed."""
    best, portable = kernels(b""), kernels(b"portable")
    infos = [lib.iq_format_at(i) for i in range(lib.iq_format_count())]
    encodable = [info.id for info in infos if info.can_encode]
    for type_id in encodable:
        rows = ffi.new("uint8_t[]", N_ROWS * lib.iq_row_bytes(type_id, N_COLS))
        call(lib.iq_quantize_rows, type_id, weights, N_ROWS, N_COLS, ffi.NULL, lib.IQ_EFFORT_FAST, rows)
        for a, b in zip(product(best, type_id, rows), product(portable, type_id, rows), strict=True):
            assert abs(a - b) <= 1e-4 * N_COLS, (type_id, a, b)
    too_new = sys.argv[2].encode()
    if lib.iq_kernels_find(too_new, ffi.new("const iq_kernels **"), ffi.new("iq_error *")) == lib.IQ_OK:
        raise SystemExit(f"{sys.argv[2]} was not refused")
    print(f"{ffi.string(lib.iq_kernels_isa(best)).decode()}: {len(encodable)} formats agree")


main()
