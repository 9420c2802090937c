"""Drawings as PNG, by Pillow: for places that do not show SVG. Light paper, twice the size."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING

from iqrun.charts.drawing import COLORS, Dot, Drawing, Line, Rect, Shape, Text

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

_SCALE = 2  # pixels of the file per pixel of the drawing
_FINE = 3  # drawn so many times larger and reduced, which smooths the edges
_PX = _SCALE * _FINE
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def png(drawing: Drawing) -> bytes:
    """The drawing as the bytes of a PNG file."""
    from PIL import Image, ImageDraw

    size = (round(drawing.width * _PX), round(drawing.height * _PX))
    image = Image.new("RGB", size, _color("paper"))
    pen = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        _draw(pen, shape)
    small = image.resize((size[0] // _FINE, size[1] // _FINE), Image.Resampling.LANCZOS)
    out = BytesIO()
    small.save(out, "PNG", optimize=True)
    return out.getvalue()


def _draw(pen: ImageDraw.ImageDraw, shape: Shape) -> None:
    if isinstance(shape, Line):
        for start, end in pairwise(shape.points):
            for a, b in _dashes(start, end) if shape.dash else [(start, end)]:
                ends = (a[0] * _PX, a[1] * _PX, b[0] * _PX, b[1] * _PX)
                pen.line(ends, fill=_color(shape.color), width=max(1, round(shape.width * _PX)))
    elif isinstance(shape, Rect):
        box = (shape.x, shape.y, shape.x + shape.width, shape.y + shape.height)
        if shape.width > 0 and shape.height > 0:
            pen.rectangle([value * _PX for value in box], fill=_color(shape.color))
    elif isinstance(shape, Dot):
        fill = _color(shape.color if shape.filled else "paper")
        place, radius = (shape.x * _PX, shape.y * _PX), (shape.radius + 0.9) * _PX
        pen.circle(place, radius, fill=fill, outline=_color(shape.color), width=round(1.8 * _PX))
    else:
        _write(pen, shape)


def _write(pen: ImageDraw.ImageDraw, shape: Text) -> None:
    color = _color(shape.color)
    stroke = round(0.03 * shape.size * _PX) if shape.bold else 0
    pen.text(
        (shape.x * _PX, shape.y * _PX),
        "".join(c if c.isprintable() else " " for c in shape.text),
        fill=color,
        font=_font(shape.size),
        anchor=_ANCHORS[shape.anchor],
        stroke_width=stroke,
        stroke_fill=color,
    )


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow brings along: a machine without any fonts draws the same picture."""
    from PIL import ImageFont

    return ImageFont.load_default(round(size * _PX))


def _dashes(
    start: tuple[float, float], end: tuple[float, float]
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The strokes of a broken line: 5 drawn, 4 left out."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    found = []
    for k in range(int(length / 9) + 1):
        a, b = 9 * k / length, min(9 * k + 5, length) / length
        found.append(((start[0] + a * dx, start[1] + a * dy), (start[0] + b * dx, start[1] + b * dy)))
    return found


def _color(role: str) -> str:
    return COLORS[role][0]
