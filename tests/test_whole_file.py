"""Small files appear complete or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from iqrun.whole_file import check_output, write_whole


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the error names the file, the old content stays, nothing lies about."""
    path = tmp_path / "report.html"
    write_whole(path, b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


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
