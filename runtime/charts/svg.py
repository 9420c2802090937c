"""Drawings as SVG: small, sharp at any size, light or dark as the reader's screen is."""

from __future__ import annotations

from html import escape

from iqrun.charts.drawing import COLORS, Dot, Drawing, Line, Rect, Shape, Text

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def svg(drawing: Drawing, *, standalone: bool = True) -> str:
    """The drawing as an ``<svg>`` element.

    Args:
        drawing: what to draw.
        standalone: as a file of its own; else as part of a page that has `style_sheet`.
    """
    width, height = _number(drawing.width), _number(drawing.height)
    size = f'width="{width}" height="{height}" ' if standalone else ""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}viewBox="0 0 {width} {height}" role="img" class="chart"'
    paper = Rect(0, 0, drawing.width, drawing.height, "paper")
    body = "\n".join(_element(shape) for shape in [paper, *drawing.shapes])
    style = f"<style>\n{style_sheet()}</style>\n" if standalone else ""
    return f'{head} aria-label="{_escaped(drawing.title)}">\n{style}{body}\n</svg>\n'


def style_sheet() -> str:
    """CSS of the colors. Without media queries (as in some viewers) the light ones hold."""
    dark = "".join(f"  {rule}\n" for rule in _rules(1))
    light = "".join(f"{rule}\n" for rule in _rules(0))
    return f".chart text {{ font-family: {_FONT}; }}\n{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _rules(which: int) -> list[str]:
    return [
        f".chart .{kind}-{role} {{ {what}: {colors[which]}; }}"
        for role, colors in COLORS.items()
        for kind, what in (("f", "fill"), ("s", "stroke"))
    ]


def _element(shape: Shape) -> str:
    if isinstance(shape, Line):
        points = " ".join(f"{_number(x)},{_number(y)}" for x, y in shape.points)
        dash = ' stroke-dasharray="5 4"' if shape.dash else ""
        return (
            f'<polyline points="{points}" class="s-{shape.color}" fill="none" stroke-width="{_number(shape.width)}"'
            f'{dash} stroke-linejoin="round"/>'
        )
    if isinstance(shape, Rect):
        place = f'x="{_number(shape.x)}" y="{_number(shape.y)}"'
        size = f'width="{_number(shape.width)}" height="{_number(shape.height)}"'
        return _noted(f'<rect {place} {size} class="f-{shape.color}"', "rect", shape.note)
    if isinstance(shape, Dot):
        place = f'cx="{_number(shape.x)}" cy="{_number(shape.y)}" r="{_number(shape.radius)}"'
        fill = shape.color if shape.filled else "paper"
        look = f'class="f-{fill} s-{shape.color}" stroke-width="1.8"'
        return _noted(f"<circle {place} {look}", "circle", shape.note)
    return _text(shape)


def _text(shape: Text) -> str:
    anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
    weight = ' font-weight="600"' if shape.bold else ""
    place = f'x="{_number(shape.x)}" y="{_number(shape.y)}" font-size="{_number(shape.size)}"'
    return f'<text {place} class="f-{shape.color}"{anchor}{weight}>{_escaped(shape.text)}</text>'


def _noted(start: str, tag: str, note: str) -> str:
    return f"{start}><title>{_escaped(note)}</title></{tag}>" if note else f"{start}/>"


def _escaped(text: str) -> str:
    """Text for XML, which forbids control characters even as entities."""
    return escape("".join(c if c.isprintable() else " " for c in text))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
