"""`iqrun compare`: files of one model side by side: size, quality, and a plot of one against the other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from iqrun.cli import options, ui

if TYPE_CHECKING:
    from iqrun.charts import Series
    from iqrun.evaluation.comparison import Comparison

HELP = "compare the quality and size of several files of a model"
EXAMPLES = """\
  iqrun compare model-iq2k.gguf model-iq3k.gguf -f heldout.txt --base model-f16.gguf
  iqrun compare model-*.gguf -f heldout.txt --base model-f16.gguf -c 256 --out plot.svg --out table.csv
  iqrun compare ours.gguf -f heldout.txt --base model-f16.gguf --points peer=measured.json --out plot.html
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="GGUF files with the same vocabulary")
    options.add_text_options(parser)
    add("--base", metavar="FILE", help="the original (or llama.cpp's saved logits): also the KL divergence from it")
    add("--speed", action="store_true", help="also the tokens generated per second")
    add(
        "--out",
        metavar="OUT",
        action="append",
        default=[],
        help="write the plot (.svg, .png), a page with plot and table (.html) or the figures (.json, .csv); repeatable",
    )
    add("--against", choices=("bytes", "bpw"), default="bytes", help="what the plot shows as size (default: bytes)")
    add("--title", default="Quality against size", help="headline of the plot")
    add(
        "--points",
        metavar="NAME=FILE",
        type=_named,
        action="append",
        default=[],
        help="also plot the points of this JSON file (of --out) as NAME; repeatable",
    )
    add("--json", action="store_true", help="print a list of objects")
    options.add_thread_option(parser)
    options.add_kv_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measures, prints the table, writes the files."""
    from iqrun import compare
    from iqrun.evaluation import comparison_report as report

    for path in args.out:
        report.check_report(path)
    others = _points(args)
    text = Path(args.file).read_bytes().decode("utf-8", "replace")
    with ui.Progress("comparing", unit="chunks") as progress:
        rows = compare(
            args.files,
            text,
            base=args.base,
            n_ctx=args.ctx,
            max_chunks=args.chunks,
            n_threads=args.threads,
            kv_type=args.kv_type,
            speed=args.speed,
            progress=progress,
        )
    if args.json:
        ui.print_json(report.to_rows(rows))
    else:
        headers, cells = report.table(rows)
        print(ui.table(headers, [[ui.printable(cell) for cell in row] for row in cells]))
    if args.out:
        note = _note(args, rows)
        drawing = report.plot(rows, others, title=args.title, subtitle=note, against=args.against)
        for path in args.out:
            report.save(path, rows, drawing, [note])
    return 0


def _points(args: argparse.Namespace) -> list[Series]:
    from iqrun.evaluation.comparison_report import read_points

    return [read_points(path, name, args.against, args.base is not None) for name, path in args.points]


def _note(args: argparse.Namespace, rows: list[Comparison]) -> str:
    """How it was measured."""
    measured = rows[0].perplexity
    base = "" if args.base is None else f", divergence from {Path(args.base).name}"
    return f"{Path(args.file).name}: {measured.n_chunks} chunks of {args.ctx} tokens{base}; down and left is better"


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, path
