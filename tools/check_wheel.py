"""Does a wheel for Linux keep what its name promises?

    python tools/check_wheel.py WHEEL...

The name says: machine, oldest glibc, CPython's stable ABI. The extension in it must be of that machine, ask for no
newer glibc symbol, no other library than those of every Linux, and nothing else but Python's symbols. Needs readelf.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = re.compile(r"iqrun-[^-]+-cp310-abi3-manylinux_2_(\d+)_(x86_64|aarch64)\.whl")
MACHINE_NAMES = {"x86_64": "X86-64", "aarch64": "AArch64"}
LIBRARIES = {"libc.so.6", "libm.so.6", "libpthread.so.0"}


def readelf(option: str, extension: Path) -> str:
    """What readelf prints about a file."""
    return subprocess.run(["readelf", "-W", option, extension], capture_output=True, text=True, check=True).stdout


def faults(extension: Path, glibc_minor: int, machine: str) -> list[str]:
    """A sentence for each promise that the extension breaks."""
    symbols = readelf("--dyn-syms", extension)
    needed = re.findall(r" UND (\w+)@GLIBC_2\.(\d+)", symbols)
    others = re.findall(r" GLOBAL \w+ +UND (\w+)$", symbols, re.M)
    libraries = re.findall(r"NEEDED.*\[(.*)\]", readelf("-d", extension))
    found = [] if MACHINE_NAMES[machine] in readelf("-h", extension) else [f"{extension.name} is not for {machine}"]
    found += [f"{name} needs glibc 2.{minor}" for name, minor in needed if int(minor) > glibc_minor]
    found += [f"{name} is no symbol of Python or glibc" for name in others if not re.match("_?Py", name)]
    found += [f"it needs the library {library}" for library in libraries if library not in LIBRARIES]
    return found


def check(wheel: Path) -> None:
    """Ends the program with a sentence if the wheel is not what its name says."""
    name = NAME.fullmatch(wheel.name)
    if name is None:
        sys.exit(f"{wheel.name}: not the name of an abi3 wheel of iqrun for Linux")
    with tempfile.TemporaryDirectory() as folder:
        extension = Path(zipfile.ZipFile(wheel).extract("iqrun/_native.abi3.so", folder))
        found = faults(extension, int(name[1]), name[2])
    if found:
        sys.exit(f"{wheel.name}: " + "; ".join(found))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        check(Path(argument))
        print(f"{argument}: as its name says")
