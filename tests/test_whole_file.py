"""Small files appear complete or not at all."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from iqrun.whole_file import check_output, write_whole


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the error names the file, the old content stays, nothing lies about."""
    path = tmp_path / "report.html"
    write_whole(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Only unfinished copies of the same file go; other hidden files stay."""
    for name in (".a.json.0123abcd.part", ".b.json.0123abcd.part", ".a.json.backup"):
        (tmp_path / name).write_bytes(b"half")
    write_whole(tmp_path / "a.json", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", ".b.json.0123abcd.part", ".a.json.backup"}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")
def test_permissions_and_links(tmp_path: Path) -> None:
    """A private file is its owner's alone; behind a symbolic link the target is replaced."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    write_whole(link, b"1", private=True)
    assert link.is_symlink()
    assert ((tmp_path / "target").stat().st_mode & 0o777, link.read_bytes()) == (0o600, b"1")


def test_names_are_checked(tmp_path: Path) -> None:
    """The suffix in any case; the folder must be there, the file must not be a folder."""
    assert check_output(tmp_path / "x.HTML", (".html",)) == ".html"
    with pytest.raises(ValueError, match=r"must end in one of \.html, \.json"):
        check_output(tmp_path / "x", (".html", ".json"))
    with pytest.raises(FileNotFoundError):
        check_output(tmp_path / "no" / "x.html", (".html",))
    (tmp_path / "d.html").mkdir()
    with pytest.raises(IsADirectoryError):
        check_output(tmp_path / "d.html", (".html",))
