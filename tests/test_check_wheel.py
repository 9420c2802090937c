"""tools/check_wheel.py sees when a wheel promises more than the extension in it keeps."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.emulated import EMULATED

TOOL = Path(__file__).parents[1] / "tools" / "check_wheel.py"
MACHINE = platform.machine()

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or MACHINE not in ("x86_64", "aarch64")
    or EMULATED or not shutil.which("cc") or not shutil.which("readelf"),
    reason="needs cc and readelf of this machine, x86-64 or aarch64 Linux",
)  # fmt: skip


def check(folder: Path, c_source: str, glibc: str = "2_17", machine: str = MACHINE, *link: str) -> str:
    """What the tool says about a wheel whose extension is made from these lines of C; empty if nothing is wrong."""
    (folder / "source.c").write_text(c_source)
    extension = folder / "_native.abi3.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", extension, folder / "source.c", *link], check=True)
    wheel = folder / f"iqrun-1.0-cp310-abi3-manylinux_{glibc}_{machine}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(extension, "iqrun/_native.abi3.so")
    ran = subprocess.run([sys.executable, TOOL, wheel], capture_output=True, text=True, check=False)
    assert (ran.returncode == 0) == (ran.stderr == "")
    return ran.stderr


def test_python_and_old_glibc_symbols_are_allowed(tmp_path: Path) -> None:
    """What an extension of the stable ABI needs."""
    assert check(tmp_path, "int puts(const char *); int Py_F(void); int f(void) { return puts(0) + Py_F(); }") == ""


def test_newer_glibc_than_the_name_is_found(tmp_path: Path) -> None:
    """A symbol's version is held against the name."""
    assert "puts needs glibc 2." in check(tmp_path, "int puts(const char *); int f(void) { return puts(0); }", "2_1")


def test_symbols_of_nobody_and_other_libraries_are_found(tmp_path: Path) -> None:
    """Both would fail on loading only, on the user's machine."""
    assert "other is no symbol of Python or glibc" in check(
        tmp_path, "int other(void); int f(void) { return other(); }"
    )
    linked = check(tmp_path, "int f(void) { return 0; }", "2_17", MACHINE, "-Wl,--no-as-needed", "-lgcc_s")
    assert "it needs the library libgcc_s.so.1" in linked


def test_another_machine_is_found(tmp_path: Path) -> None:
    """An extension for this machine in a wheel for another one."""
    other = "aarch64" if MACHINE == "x86_64" else "x86_64"
    assert f"is not for {other}" in check(tmp_path, "int f(void) { return 0; }", "2_17", other)
