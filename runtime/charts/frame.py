"""What a chart with two axes has besides its data: title, grid, ticks and their labels."""

from __future__ import annotations

from dataclasses import dataclass

from iqrun.charts.axis import Axis, label
from iqrun.charts.drawing import Drawing, Line, Text

_LEFT, _RIGHT, _BOTTOM = 62.0, 24.0, 52.0
_TITLE, _SUBTITLE, _LEGEND, _AXIS_TITLE = 30.0, 20.0, 24.0, 24.0


@dataclass(frozen=True, slots=True)
class Frame:
    """A drawing with axes, and the way from values to its pixels.

    Attributes:
        drawing: with everything but the data.
        x, y: the axes.
        left, top, right, bottom: the edges of the area between the axes.
    """

    drawing: Drawing
    x: Axis
    y: Axis
    left: float
    top: float
    right: float
    bottom: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        return (
            self.left + self.x.place(x) * (self.right - self.left),
            self.bottom - self.y.place(y) * (self.bottom - self.top),
        )


def frame(
    title: str, subtitle: str, x: Axis, y: Axis, legend: list[str], *, width: float = 820, height: float = 500
) -> Frame:
    """Draws title, legend (of two names or more), axes and grid."""
    drawing = Drawing(width, height, title)
    top = _heading(drawing, title, subtitle, legend)
    area = Frame(drawing, x, y, _LEFT, top + _AXIS_TITLE, width - _RIGHT, height - _BOTTOM)
    drawing.add(Text(22, top + 8, y.title, "muted"))
    drawing.add(Text((area.left + area.right) / 2, height - 14, x.title, "muted", anchor="middle"))
    for value in y.ticks():
        _, row = area.at(x.low, value)
        drawing.add(Line(((area.left, row), (area.right, row)), "grid"))
        drawing.add(Text(area.left - 8, row + 4, label(value), "muted", anchor="end"))
    for value in x.ticks(10):
        column, _ = area.at(value, y.low)
        drawing.add(Line(((column, area.top), (column, area.bottom)), "grid"))
        drawing.add(Text(column, area.bottom + 18, label(value), "muted", anchor="middle"))
    drawing.add(Line(((area.left, area.bottom), (area.right, area.bottom)), "muted"))
    return area


def _heading(drawing: Drawing, title: str, subtitle: str, legend: list[str]) -> float:
    """Draws the lines above the axes; returns where they end."""
    y = _TITLE
    drawing.add(Text(22, y, title, "ink", 17, bold=True))
    if subtitle:
        y += _SUBTITLE
        drawing.add(Text(22, y, subtitle, "muted"))
    if len(legend) > 1:
        y = drawing.legend(22, y + _LEGEND, legend)
    return y + 18
