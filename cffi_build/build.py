"""Build rules of the native core: `iqrun._native`, cffi API mode, CPython's stable ABI.

cffi reads include/iqrun.h itself (without its preprocessor lines), so the API is written down once.
No instruction-set flags: each kernel file opens its own target region, and one binary runs everywhere.
"""

from __future__ import annotations

import os
import platform
import re
import struct
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
INCLUDE = HERE / "include"
CSRC = HERE / "csrc"


def refusal(pointer_bytes: int, machine: str) -> str | None:
    """Why iqrun cannot be built for an interpreter with such pointers, on such a machine; None where it can."""
    if pointer_bytes == 8:
        return None
    return (
        f"iqrun needs a 64-bit Python, and this one is {8 * pointer_bytes}-bit (on {machine}): it maps whole models "
        "into memory. On a Raspberry Pi 3, 4, 5 or Zero 2 install the 64-bit Raspberry Pi OS, which Raspberry Pi "
        'Imager lists as "Raspberry Pi OS (64-bit)"; elsewhere a 64-bit system with a 64-bit Python.'
    )


def cdef_from_header(header: str) -> str:
    """iqrun.h as cffi can parse it: C++ guards, includes and include guard dropped, constants kept."""
    text = re.sub(r"#ifdef __cplusplus\n.*?#endif\n", "", header, flags=re.S)
    keep = [line for line in text.splitlines() if not line.startswith("#") or re.match(r"#define \w+ \d+$", line)]
    return "\n".join(keep)


def sources() -> list[str]:
    """Every C file of the core, relative to the project root as setuptools wants it."""
    return sorted(path.relative_to(ROOT).as_posix() for path in CSRC.rglob("*.c"))


def headers() -> list[str]:
    """What the C files include: a change in any of them rebuilds the extension."""
    return sorted(path.relative_to(ROOT).as_posix() for folder in (INCLUDE, CSRC) for path in folder.rglob("*.h"))


def compile_args() -> list[str]:
    """C11, optimised, no silent FMA contraction: SIMD and portable differ by summation order only."""
    args = ["-std=c11", "-O3", "-g0", "-ffp-contract=off", "-fvisibility=hidden", "-fno-math-errno", "-pthread"]
    args += ["-Wall", "-Wextra"]
    sanitize = os.environ.get("IQRUN_SANITIZE")
    if sanitize:
        args += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-g", "-O1"]
    return args


def libraries() -> list[str]:
    """The mathematics library, which Windows has in its C library; there python3.dll, which all versions share."""
    return ["python3"] if sys.platform == "win32" else ["m"]


def link_args() -> list[str]:
    """Flags for the linker, including the sanitizers' run-time when one is asked for."""
    sanitize = os.environ.get("IQRUN_SANITIZE")
    return ["-pthread"] + ([f"-fsanitize={sanitize}"] if sanitize else [])


if refused := refusal(struct.calcsize("P"), platform.machine()):
    raise SystemExit(refused)

ffibuilder = FFI()
ffibuilder.cdef(cdef_from_header((INCLUDE / "iqrun.h").read_text(encoding="utf-8")))
ffibuilder.set_source(
    "iqrun._native",
    '#include "iqrun.h"',
    sources=sources(),
    depends=headers(),
    include_dirs=[INCLUDE.relative_to(ROOT).as_posix(), CSRC.relative_to(ROOT).as_posix()],
    extra_compile_args=compile_args(),
    extra_link_args=link_args(),
    libraries=libraries(),
    py_limited_api=True,
)
