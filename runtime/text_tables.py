"""Tables as text for other programs: comma-separated values, Markdown."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys, these in the first line; None is an empty cell."""
    out = StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; columns that hold numbers only stand to the right."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    rules = ["---:" if all(is_number(row[i]) for row in cells) else "---" for i in range(len(headers))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headers, rules, *cells))


def is_number(text: str) -> bool:
    """Whether a cell counts as a number for alignment: ``12``, ``3.5 MiB``, ``-0.1 %``, ``-``."""
    return text in {"", "-"} or text.lstrip("+-")[:1].isdigit()
