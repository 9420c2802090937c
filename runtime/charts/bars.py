"""Horizontal bars with their names on the left and their numbers on the right, in groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from iqrun.charts.drawing import Drawing, Line, Rect, Text, series_color, text_width

_ROW, _BAR, _GROUP = 26.0, 16.0, 34.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        name: what it stands for.
        value: its length, not negative.
        text: what is written behind it.
        mark: where a limit is drawn across it, or None.
    """

    name: str
    value: float
    text: str
    mark: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that share a scale."""

    title: str
    bars: Sequence[Bar]


def bar_chart(groups: Sequence[Group], *, title: str, subtitle: str = "", width: float = 820) -> Drawing:
    """Draws one bar a line, group below group.

    Args:
        groups: from top to bottom; an empty title is not shown.
        title: the headline.
        subtitle: how it was measured.
        width: pixels.
    """
    top = 44.0 + (20 if subtitle else 0)
    height = top + sum((_GROUP if group.title else 0) + _ROW * len(group.bars) for group in groups) + 16
    drawing = Drawing(width, height, title)
    drawing.add(Text(22, 30, title, "ink", 17, bold=True))
    if subtitle:
        drawing.add(Text(22, 50, subtitle, "muted"))
    left = 32 + max((text_width(bar.name, 12) for group in groups for bar in group.bars), default=0)
    for group in groups:
        top = _draw_group(drawing, group, left, top)
    return drawing


def _draw_group(drawing: Drawing, group: Group, left: float, top: float) -> float:
    """Draws a group; returns where it ends."""
    if group.title:
        drawing.add(Text(22, top + 22, group.title, "muted", bold=True))
        top += _GROUP
    room = max((text_width(bar.text, 12) for bar in group.bars), default=0)
    longest = max((max(bar.value, bar.mark or 0.0) for bar in group.bars), default=0.0) or 1.0
    unit = (drawing.width - left - room - 40) / longest
    for index, bar in enumerate(group.bars):
        _draw(drawing, bar, left, top + _ROW * index, unit)
    return top + _ROW * len(group.bars)


def _draw(drawing: Drawing, bar: Bar, left: float, y: float, unit: float) -> None:
    end = left + unit * max(bar.value, bar.mark or 0.0)
    drawing.add(Text(left - 10, y + 17, bar.name, anchor="end"))
    if bar.mark is not None:
        drawing.add(Rect(left, y + 5, unit * bar.mark, _BAR, "grid"))
    drawing.add(Rect(left, y + 5, unit * bar.value, _BAR, series_color(0), f"{bar.name}: {bar.text}"))
    if bar.mark is not None:
        x = left + unit * bar.mark
        drawing.add(Line(((x, y + 2), (x, y + _BAR + 8)), "ink", 1.6))
    drawing.add(Text(end + 8, y + 17, bar.text, "muted"))
