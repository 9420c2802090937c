"""Small files that appear complete or not at all: reports and pictures."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial
from os import PathLike, fspath
from pathlib import Path


def check_output(path: str | PathLike[str], suffixes: Sequence[str]) -> str:
    """Checks that a file can be written, before the long work whose result it is to hold.

    Returns:
        Its suffix in lower case, one of `suffixes`.

    Raises:
        OSError: its folder does not exist, or it is a folder itself.
        ValueError: the suffix is none of `suffixes`.
    """
    target = Path(fspath(path))
    if target.suffix.lower() not in suffixes:
        raise ValueError(f"{target}: the name must end in one of {', '.join(suffixes)}")
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    return target.suffix.lower()


def write_whole(path: Path, data: bytes, *, private: bool = False) -> None:
    """Writes a file beside its place and moves it there: whoever looks sees the old one or all of the new one.

    It is on disk when this returns. What a killed process left of an earlier write is removed.

    Args:
        path: the file; a symbolic link stays, and what it points to is replaced.
        data: all of its bytes.
        private: only its owner may read it.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    real = path.resolve()
    temporary = real.with_name(f".{real.name}.{os.urandom(4).hex()}.part")
    try:
        remove_unfinished(real)
        with open(temporary, "xb", opener=partial(os.open, mode=0o600 if private else 0o666)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(real)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Removes what a killed process left while it wrote this file, with `write_whole` or as a GGUF file."""
    from glob import escape

    for stale in path.parent.glob(f".{escape(path.name)}.????????.part"):
        stale.unlink(missing_ok=True)
