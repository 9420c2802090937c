"""Web pages that need nothing but themselves: headlines, tables and drawings, light or dark as the screen is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from iqrun.charts.drawing import COLORS, Drawing
from iqrun.charts.svg import style_sheet, svg
from iqrun.text_tables import is_number

_LAYOUT = """
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0.5rem 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 0.6rem; }
p { margin: 0.4rem 0; color: var(--muted); } p.warning { color: var(--series1); }
.wide { overflow-x: auto; } .chart { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.8rem 0.25rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--grid); }
th { color: var(--muted); font-weight: 600; } .word { text-align: left; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """An HTML page of parts made by the functions below."""
    light, dark = ("".join(f"--{role}: {pair[which]}; " for role, pair in COLORS.items()) for which in (0, 1))
    colors = (
        f":root {{ color-scheme: light dark; {light}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}"
    )
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>\n{colors}\n{style_sheet()}{_LAYOUT}</style>\n</head>\n"
        f"<body>\n<h1>{_text(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """A headline within the page."""
    return f"<h2>{_text(text)}</h2>"


def paragraph(text: str, *, warning: bool = False) -> str:
    """A line of text."""
    return f'<p class="warning">{_text(text)}</p>' if warning else f"<p>{_text(text)}</p>"


def picture(drawing: Drawing) -> str:
    """A drawing within the page."""
    return f'<div class="wide">{svg(drawing, standalone=False)}</div>'


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; a column whose cells are all numbers (or ``-``) stands to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    words = [any(not is_number(row[i]) for row in cells) for i in range(len(headers))]
    lines = [_line("th", headers, words), *(_line("td", row, words) for row in cells)]
    return f'<div class="wide"><table>\n{chr(10).join(lines)}\n</table></div>'


def _line(tag: str, cells: Sequence[str], words: Sequence[bool]) -> str:
    kinds = [' class="word"' if word else "" for word in words]
    parts = [f"<{tag}{kind}>{_text(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True)]
    return f"<tr>{''.join(parts)}</tr>"


def _text(text: str) -> str:
    """Text for HTML, without control characters."""
    return escape("".join(c if c.isprintable() else " " for c in text))
