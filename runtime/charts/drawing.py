"""A picture as a list of shapes: what the renderers (`svg`, `png`) draw, and what the charts add to.

Coordinates are pixels from the upper left corner. Colors are roles, such as ``ink`` or ``series2``; each renderer knows
what they look like on light paper, and SVG also on dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Anchor: TypeAlias = Literal["start", "middle", "end"]
XY: TypeAlias = tuple[float, float]

N_SERIES = 9

# Role -> color on light and on dark paper. The series can be told apart by people who do not see all colors.
COLORS: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14171c"),
    "ink": ("#1f2430", "#e6e8ec"),
    "muted": ("#667085", "#98a2b3"),
    "grid": ("#e4e7ec", "#2a2f38"),
    "series0": ("#1d4ed8", "#7aa2ff"),
    "series1": ("#c2410c", "#fb923c"),
    "series2": ("#0f766e", "#2dd4bf"),
    "series3": ("#a21caf", "#e879f9"),
    "series4": ("#a16207", "#facc15"),
    "series5": ("#475467", "#cbd5e1"),
    "series6": ("#be123c", "#fb7185"),
    "series7": ("#4d7c0f", "#a3e635"),
    "series8": ("#7c3aed", "#a78bfa"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A polygonal line; `dash` draws it broken."""

    points: tuple[XY, ...]
    color: str
    width: float = 1.0
    dash: bool = False


@dataclass(frozen=True, slots=True)
class Rect:
    """A filled rectangle; `note` is shown when the mouse rests on it."""

    x: float
    y: float
    width: float
    height: float
    color: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    """A disk, or a ring on paper if not `filled`; `note` is shown when the mouse rests on it."""

    x: float
    y: float
    radius: float
    color: str
    filled: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text whose baseline begins, has its middle, or ends at (x, y)."""

    x: float
    y: float
    text: str
    color: str = "ink"
    size: float = 12.0
    anchor: Anchor = "start"
    bold: bool = False


Shape: TypeAlias = Line | Rect | Dot | Text


@dataclass
class Drawing:
    """Shapes on paper, drawn in order.

    Attributes:
        width, height: size in pixels.
        title: what it shows, also for those who cannot see it.
        shapes: what was added.
    """

    width: float
    height: float
    title: str
    shapes: list[Shape] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        """Draws more on top."""
        self.shapes.extend(shapes)

    def legend(self, x: float, y: float, names: Sequence[str]) -> float:
        """Names of the series behind dots in their colors, on as many lines as it takes; returns the last one's y."""
        left = x
        for index, name in enumerate(names):
            width = 33 + text_width(name, 12)
            if x > left and x + width > self.width:
                x, y = left, y + 20
            self.add(Dot(x + 5, y - 4, 4.5, series_color(index)), Text(x + 15, y, name, "ink"))
            x += width
        return y


def stack(drawings: Sequence[Drawing]) -> Drawing:
    """Drawings below each other, as one."""
    whole = Drawing(max(drawing.width for drawing in drawings), 0, drawings[0].title)
    for drawing in drawings:
        whole.add(*(_lowered(shape, whole.height) for shape in drawing.shapes))
        whole.height += drawing.height
    return whole


def _lowered(shape: Shape, by: float) -> Shape:
    if isinstance(shape, Line):
        return replace(shape, points=tuple((x, y + by) for x, y in shape.points))
    return replace(shape, y=shape.y + by)


def series_color(index: int) -> str:
    """The color of the n-th series; they begin anew after `N_SERIES`."""
    return f"series{index % N_SERIES}"


def text_width(text: str, size: float) -> float:
    """About how wide a text is in a sans-serif font: enough to keep texts apart."""
    return 0.57 * size * len(text)
