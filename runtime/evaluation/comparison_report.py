"""What `compare` found, for people and programs: table, plot of quality against size, web page, CSV, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from iqrun.charts import Drawing, Point, Series, page, png, scatter_chart, svg
from iqrun.errors import IqrunError
from iqrun.evaluation.comparison import Comparison, efficient_paths
from iqrun.text_tables import csv_text
from iqrun.whole_file import check_output, write_whole

SUFFIXES = (".svg", ".png", ".html", ".json", ".csv")
AGAINST = {"bytes": "file, MB", "bpw": "bits per weight"}


def to_rows(rows: Sequence[Comparison]) -> list[dict[str, Any]]:
    """One flat object per file, ready for JSON; the figures bear the names that ``iqrun perplexity --json`` gives."""
    best = efficient_paths(rows)
    return [_row(row, row.path in best) for row in rows]


def table(rows: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells, in units for people."""
    best = efficient_paths(rows)
    headers = ["file", "types", "bytes", "bpw", "PPL"]
    headers += ["KLD", "+-", "same top 1"] if rows[0].divergence else ["+-"]
    headers += ["tokens/s"] if rows[0].decode_speed else []
    return [*headers, "efficient"], [[*_cells(row), "yes" if row.path in best else "no"] for row in rows]


def plot(
    rows: Sequence[Comparison],
    others: Sequence[Series] = (),
    *,
    title: str = "Quality against size",
    subtitle: str = "",
    against: str = "bytes",
) -> Drawing:
    """Quality against size; down and left is better.

    Args:
        rows: the files.
        others: further points, from `read_points`.
        title: the headline.
        subtitle: how it was measured.
        against: a key of `AGAINST`.
    """
    with_kld = rows[0].divergence is not None
    own = [point(row.name, figures, against, with_kld) for row, figures in zip(rows, to_rows(rows), strict=True)]
    return scatter_chart(
        [Series("these files", [one for one in own if one is not None]), *others],
        title=title,
        subtitle=subtitle,
        x=AGAINST[against],
        y="mean KLD, nats per token" if with_kld else "perplexity",
        log_y=with_kld,
    ).drawing


def point(label: str, figures: Mapping[str, Any], against: str, with_kld: bool) -> Point | None:
    """A point of the plot from one object of `to_rows`, or of a file of the same form; None if a figure is missing."""
    x: Any = figures.get(against)
    y: Any = figures.get("mean_kld" if with_kld else "ppl")
    error: Any = figures.get("kld_stderr" if with_kld else "ppl_stderr", 0.0)
    if not all(isinstance(value, (int, float)) and isfinite(value) for value in (x, y, error)):
        return None
    return Point(label, float(x) / (1e6 if against == "bytes" else 1), float(y), float(error))


def read_points(path: str | PathLike[str], name: str, against: str, with_kld: bool) -> Series:
    """Points of a JSON file: what `save` wrote, or ``{"kld": {label: {"bytes": ..., "mean_kld": ...}, ...}}``.

    Raises:
        IqrunError: it has no such points.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(Path(fspath(path)).read_text(encoding="utf-8"))
        labelled = found["kld"].items() if "kld" in found else [(row["name"], row) for row in found["files"]]
        points = [point(str(label), figures, against, with_kld) for label, figures in labelled]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise IqrunError(f"{fspath(path)}: not a file of points: give one that `iqrun compare --out` wrote") from error
    shown = [one for one in points if one is not None]
    if not shown:
        raise IqrunError(f"{fspath(path)}: no point has both {against} and {'mean_kld' if with_kld else 'ppl'}")
    return Series(name, shown)


def check_report(path: str | PathLike[str]) -> None:
    """Checks that `save` can write there.

    Raises:
        OSError: the folder does not exist.
        ValueError: the suffix is none of `SUFFIXES`.
    """
    check_output(path, SUFFIXES)


def save(path: str | PathLike[str], rows: Sequence[Comparison], drawing: Drawing, notes: Sequence[str] = ()) -> None:
    """Writes the comparison in the form that the suffix names: .svg and .png the plot, .html both, .json, .csv.

    Raises:
        OSError: it cannot be written.
        ValueError: the suffix is none of `SUFFIXES`.
    """
    suffix = check_output(path, SUFFIXES)
    data = png(drawing) if suffix == ".png" else _text(suffix, rows, drawing, notes).encode("utf-8", "backslashreplace")
    write_whole(Path(fspath(path)), data)


def _text(suffix: str, rows: Sequence[Comparison], drawing: Drawing, notes: Sequence[str]) -> str:
    if suffix == ".svg":
        return svg(drawing)
    if suffix == ".html":
        parts = [page.picture(drawing), page.heading("The files"), page.table(*table(rows))]
        return page.page(f"Comparison of {len(rows)} files", parts)
    if suffix == ".json":
        return json.dumps({"notes": list(notes), "files": to_rows(rows)}, indent=1) + "\n"
    return csv_text([{**row, "types": _mix(row["types"])} for row in to_rows(rows)])


def _row(row: Comparison, is_efficient: bool) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "name": row.name,
        "path": row.path,
        **{"bytes": row.contents.n_bytes, "bpw": row.contents.bpw, "types": row.contents.types},
        **asdict(row.perplexity),
    }
    if row.divergence is not None:
        divergence = asdict(row.divergence)
        del divergence["model"]
        base = divergence.pop("base")
        figures |= {"ppl_base": base["ppl"], "ppl_base_stderr": base["ppl_stderr"], **divergence}
    if row.decode_speed is not None:
        figures["tokens_per_second"] = row.decode_speed
    return {**figures, "efficient": is_efficient}


def _cells(row: Comparison) -> list[str]:
    cells = [row.name, _mix(row.contents.types), f"{row.contents.n_bytes:,}", f"{row.contents.bpw:.3f}"]
    cells += [f"{row.perplexity.ppl:.4f}"]
    if row.divergence is None:
        cells += [f"{row.perplexity.ppl_stderr:.4f}"]
    else:
        figures = row.divergence
        cells += [f"{figures.mean_kld:.6f}", f"{figures.kld_stderr:.6f}", f"{100 * figures.same_top1:.2f} %"]
    return cells + ([] if row.decode_speed is None else [f"{row.decode_speed:.1f}"])


def _mix(types: Mapping[str, float]) -> str:
    """The types that hold at least half a percent of the weights: ``IQ3_K 83 %, IQ4_K 17 %``."""
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in types.items() if share >= 0.005)
