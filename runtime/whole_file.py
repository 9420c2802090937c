"""Small files that appear complete or not at all: reports and pictures."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
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


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file beside its place and moves it there: whoever looks sees the old one or all of the new one.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
