"""Builds the wheels for Linux on an x86-64 machine: for x86-64 and, by cross-compilation, for 64-bit ARM.

    python3 -m venv build/wheels && build/wheels/bin/pip install -r tools/wheel-requirements.txt
    build/wheels/bin/python tools/build_wheels.py [--out dist] [--only x86_64]

gcc compiles (CONTRIBUTING.md says why), zig links: its linker knows the symbols of every glibc, so the wheels run on
systems far older than this one. Needs gcc and, for aarch64, aarch64-linux-gnu-gcc.

The wheels are made from the source distribution, which is left beside them. The same commit, compiler and
wheel-requirements.txt give the same bytes; the last lines are the sums that `sha256sum -c` reads. SOURCE_DATE_EPOCH is
the time of the commit unless it is set.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from check_wheel import check

ROOT = Path(__file__).resolve().parents[1]
COMPILERS = {"x86_64": "gcc", "aarch64": "aarch64-linux-gnu-gcc"}
GLIBC = "2.17"  # of 2012, the first one for aarch64
BUILD_TIME_WITHOUT_GIT = "315532800"  # 1980, when zip's calendar begins


def commit_time() -> str:
    """The time of the commit, in seconds: what the files in the wheels are dated."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or BUILD_TIME_WITHOUT_GIT


def build_sdist(out: Path) -> Path:
    """The source distribution, made anew."""
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return max(out.glob("iqrun-*.tar.gz"), key=lambda path: path.stat().st_mtime)


def unpack(sdist: Path, folder: Path) -> Path:
    """The sources, with the same permissions whatever this machine's umask is."""
    shutil.unpack_archive(sdist, folder)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return next(folder.iterdir())


def copy_python_headers(folder: Path) -> Path:
    """Python.h as it is and pyconfig.h of this machine, where Debian has a switch between architectures.

    It serves both: the stable ABI needs only sizes of C types from it, and both targets are 64-bit Linux.
    """
    shutil.copytree(sysconfig.get_paths()["include"], folder)
    shutil.copyfile(sysconfig.get_config_h_filename(), folder / "pyconfig.h")
    return folder


def build_wheel(machine: str, source: Path, headers: Path, out: Path) -> Path:
    """Runs in a process of its own, in the unpacked sources: setuptools keeps its state in globals."""
    from setuptools import build_meta

    target = f"{machine}-linux-gnu.{GLIBC}"
    # In place of the flags that the running interpreter was built with: build.py says all that matters.
    sysconfig.get_config_vars().update(
        CC=COMPILERS[machine],
        CFLAGS=f"-I{headers}",
        CCSHARED="-fPIC",
        LDSHARED=f"{sys.executable} -m ziglang cc -target {target} -shared -s",
    )
    os.chdir(source)
    tag = f"manylinux_{GLIBC.replace('.', '_')}_{machine}"
    name: str = build_meta.build_wheel(str(out), {"--build-option": f"--plat-name={tag}"})
    return out / name


def build_in_child(machine: str, sdist: Path, out: Path) -> Path:
    """One wheel, checked."""
    with tempfile.TemporaryDirectory() as scratch:
        source, headers = unpack(sdist, Path(scratch) / "source"), copy_python_headers(Path(scratch) / "headers")
        arguments = ["--only", machine, "--from", str(source), "--headers", str(headers), "--out", str(out)]
        log = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if log.returncode:
        sys.exit(f"the wheel for {machine} could not be built:\n{log.stdout[-4000:]}{log.stderr[-4000:]}")
    wheel = Path(log.stdout.splitlines()[-1])
    check(wheel)
    return wheel


def main() -> None:
    """Source distribution first, then a wheel for each machine that was named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=COMPILERS, help="not both")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the files")
    parser.add_argument("--from", dest="source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--headers", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.source:
        print(build_wheel(options.only, options.source, options.headers, options.out))
        return
    if platform.machine() != "x86_64":
        sys.exit(f"build the wheels on an x86-64 machine: gcc compiles for {platform.machine()} here")
    os.umask(0o022)
    os.environ.setdefault("SOURCE_DATE_EPOCH", commit_time())
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    sdist = build_sdist(out)
    for machine in [options.only] if options.only else COMPILERS:
        wheel = build_in_child(machine, sdist, out)
        print(f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}", flush=True)


if __name__ == "__main__":
    main()
