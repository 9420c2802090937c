"""Points of several series between two axes, labelled, with the efficient ones joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from iqrun.charts.axis import Axis
from iqrun.charts.drawing import XY, Dot, Line, Text, series_color, text_width
from iqrun.charts.frame import Frame, frame

_LABEL_SIZE = 10.5
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement.

    Attributes:
        label: its name.
        x, y: its values.
        error: standard error of `y`.
    """

    label: str
    x: float
    y: float
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind, in one color."""

    name: str
    points: Sequence[Point]


def efficient(points: Iterable[Point]) -> list[Point]:
    """The points that no other one beats, by ascending `x`: none is lower that is not, by a thousandth, further right.

    (Two files of the same mix differ in size by the names in their headers: that makes neither smaller.)
    """
    ascending = sorted(points, key=lambda point: (point.x, point.y))
    return [point for point in ascending if not any(_beats(other, point) for other in ascending)]


def _beats(a: Point, b: Point) -> bool:
    return a.x <= b.x * 1.001 and (a.y, a.x) < (b.y, b.x)


def scatter_chart(
    series: Sequence[Series],
    *,
    title: str,
    subtitle: str = "",
    x: str,
    y: str,
    log_y: bool = True,
    frontier: bool = True,
    joined: bool = False,
) -> Frame:
    """Draws series of points; `Frame.drawing` is the picture.

    Args:
        series: what to draw; the first is drawn last, above the others.
        title: the headline.
        subtitle: how it was measured.
        x: title of the horizontal axis.
        y: title of the vertical axis.
        log_y: whether the vertical axis is logarithmic.
        frontier: joins the efficient points; the others become rings.
        joined: joins the points of each series, which then have no labels and stand at whole numbers.
    """
    points = [point for one in series for point in one.points]
    x_axis = Axis.around(x, [point.x for point in points], whole=joined)
    y_axis = Axis.around(y, [point.y for point in points], log=log_y)
    area = frame(title, subtitle, x_axis, y_axis, [one.name for one in series])
    best = efficient(points) if frontier else []
    if len(best) > 1:
        area.drawing.add(Line(tuple(area.at(point.x, point.y) for point in best), "muted", 1.4, dash=True))
        area.drawing.add(Text(area.right, area.top - 16, "filled: none is smaller and better", "muted", anchor="end"))
    for index, one in reversed(list(enumerate(series))):
        _draw(area, one, series_color(index), set(best) if frontier else set(one.points), joined)
    if not joined:
        colored = [(point, series_color(index)) for index, one in enumerate(series) for point in one.points]
        _name(area, colored, best)
    return area


def _draw(area: Frame, series: Series, color: str, filled: set[Point], joined: bool) -> None:
    places = tuple(area.at(point.x, point.y) for point in series.points)
    if joined and len(places) > 1:
        area.drawing.add(Line(places, color, 1.8))
    for point, (x, y) in zip(series.points, places, strict=True):
        if point.error > 0:
            ends = (point.y - point.error, point.y + point.error)
            area.drawing.add(Line(tuple(area.at(point.x, end) for end in ends), color, 1.4))
        note = f"{series.name} {point.label}: {area.x.title} {point.x:.6g}, {area.y.title} {point.y:.6g}"
        area.drawing.add(Dot(x, y, 3.2 if joined else 4.2, color, point in filled, note))


def _name(area: Frame, points: Sequence[tuple[Point, str]], best: Sequence[Point]) -> None:
    """Puts each label where it covers no point, no label and, if that can be, no line; leaves it out without room."""
    places = [area.at(point.x, point.y) for point, _ in points]
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    line = _boxes_along([area.at(point.x, point.y) for point in best])
    for (point, color), (x, y) in zip(points, places, strict=True):
        free = [box for box in _around(x, y, text_width(point.label, _LABEL_SIZE)) if _is_free(area, box, taken)]
        box = next((box for box in free if not any(_overlap(box, other) for other in line)), next(iter(free), None))
        if box is not None:
            taken.append(box)
            area.drawing.add(Text(box[0], box[3] - 2, point.label, color, _LABEL_SIZE))


def _around(x: float, y: float, width: float) -> list[Box]:
    """Where the label of a point may stand: beside it, above, below, at its corners."""
    right, left, middle = x + 9, x - 9 - width, x - width / 2
    starts = [(right, y + 4), (left, y + 4), (middle, y - 9), (middle, y + 17)]
    starts += [(start, base) for base in (y - 8, y + 15) for start in (right - 3, left + 3)]
    return [(start, base - _LABEL_SIZE, start + width, base + 2) for start, base in starts]


def _is_free(area: Frame, box: Box, taken: Sequence[Box]) -> bool:
    inside = area.left <= box[0] and box[2] <= area.right + 20 and area.top - 4 <= box[1] and box[3] < area.bottom
    return inside and not any(_overlap(box, other) for other in taken)


def _boxes_along(places: Sequence[XY]) -> list[Box]:
    """Small boxes that cover a polygonal line."""
    found = []
    for (x1, y1), (x2, y2) in pairwise(places):
        n = 1 + int(max(abs(x2 - x1), abs(y2 - y1)) / 4)
        for k in range(n + 1):
            x, y = x1 + (x2 - x1) * k / n, y1 + (y2 - y1) * k / n
            found.append((x - 1, y - 1, x + 1, y + 1))
    return found


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
