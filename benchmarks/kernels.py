"""How many nanoseconds does a kernel need for 256 weights?

Every format on every instruction set that runs here, one thread, weights in the caches: what decoding (1 token) and
prefill (32, 256 tokens) cost when memory does not limit them. The last column is the rate at which the kernel consumes
weight bytes with one token; where it is above what one core reads from memory (second line), decoding runs at the
memory's speed.

    python benchmarks/kernels.py [--formats iq4_k,iq2_k] [--isas avx512,avx2] [--repeats 30]
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from time import thread_time

import numpy as np
import numpy.typing as npt

from iqrun import native
from iqrun.native import check, ffi, lib, pointer

N_COLS = 2048
N_ROWS = 512
TOKENS = (1, 4, 32, 256)
SUPERBLOCKS = N_ROWS * N_COLS / 256


def cpu_name() -> str:
    """The CPU as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def read_gigabytes_per_second() -> float:
    """What one core reads from memory."""
    data = np.ones(1 << 28, np.uint8)
    seconds = ffi.new("double *")
    check(lib.iq_measure_read, pointer(data, "void *"), data.size, 1, 5, seconds)
    return float(data.size / seconds[0] / 1e9)


def rows_of(info: object) -> npt.NDArray[np.uint8]:
    """Rows whose scales are ordinary numbers: subnormal or infinite ones would be timed instead of the kernel."""
    weights = np.random.default_rng(1).standard_normal((N_ROWS, N_COLS)).astype(np.float32)
    row_bytes = lib.iq_row_bytes(info.id, N_COLS)  # type: ignore[attr-defined]
    rows = np.full((N_ROWS, row_bytes), 0x11, np.uint8)
    if info.can_encode:  # type: ignore[attr-defined]
        check(lib.iq_quantize_rows, info.id, pointer(weights, "float *"), N_ROWS, N_COLS, ffi.NULL,  # type: ignore[attr-defined]
              lib.IQ_EFFORT_FAST, pointer(rows, "void *", writable=True))  # fmt: skip
    return rows


def nanoseconds(isa: str, type_id: int, rows: npt.NDArray[np.uint8], n_tokens: int, repeats: int) -> float:
    """Best of some runs (time of this thread, so that a busy machine disturbs little), per superblock and token.

    The quantization of the activations is part of it.
    """
    x = np.random.default_rng(2).standard_normal((n_tokens, N_COLS)).astype(np.float32)
    y = np.empty((n_tokens, N_ROWS), np.float32)
    args = (native.kernels(isa), type_id, pointer(rows, "void *"), N_ROWS, N_COLS, pointer(x, "float *"), n_tokens,
            pointer(y, "float *"))  # fmt: skip
    best = float("inf")
    for _ in range(max(3, repeats if n_tokens < 32 else repeats // 8)):
        start = thread_time()
        check(lib.iq_matmul, *args)
        best = min(best, thread_time() - start)
    return best * 1e9 / SUPERBLOCKS / n_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs_here = [isa for isa, runs in native.built_isas().items() if runs and isa != "portable"] or ["portable"]
    parser.add_argument("--isas", default=",".join(runs_here))
    parser.add_argument("--formats", default="")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    print(f"{cpu_name()}; {N_ROWS} rows of {N_COLS} columns, one thread, best of {options.repeats}")
    print(f"one core reads {read_gigabytes_per_second():.1f} GB/s from memory")
    for isa in options.isas.split(","):
        print(f"\n{isa}: ns per 256 weights and token\n{'format':8}", *(f"{n:>6} tok" for n in TOKENS), "  GB/s at 1")
        for i in range(lib.iq_format_count()):
            info = lib.iq_format_at(i)
            name = ffi.string(info.name).decode()
            if options.formats and name not in options.formats.split(","):
                continue
            rows = rows_of(info)
            times = [nanoseconds(isa, info.id, rows, n, options.repeats) for n in TOKENS]
            rate = rows.nbytes / SUPERBLOCKS / times[0]
            print(f"{name:8}", *(f"{t:10.2f}" for t in times), f"{rate:10.1f}", flush=True)


if __name__ == "__main__":
    main()
