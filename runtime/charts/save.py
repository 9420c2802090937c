"""Drawings as files, by the suffix of their names."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from iqrun.charts.drawing import Drawing
from iqrun.charts.png import png
from iqrun.charts.svg import svg
from iqrun.whole_file import check_output, write_whole

PICTURES = (".svg", ".png")


def check_picture(path: str | PathLike[str]) -> None:
    """Checks that a picture can be written there, before the work that it is to show.

    Raises:
        IqrunError: PNG is asked for, and Pillow is not installed.
        OSError: the folder does not exist.
        ValueError: the suffix is none of .svg and .png.
    """
    check_output(path, PICTURES)


def save(drawing: Drawing, path: str | PathLike[str]) -> None:
    """Writes a drawing as SVG or PNG; the file appears when it is complete, and replaces an older one.

    Raises:
        OSError: it cannot be written.
        ValueError: the suffix is none of .svg and .png.
    """
    is_png = check_output(path, PICTURES) == ".png"
    write_whole(Path(fspath(path)), png(drawing) if is_png else svg(drawing).encode("utf-8"))
