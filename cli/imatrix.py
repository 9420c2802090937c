"""`iqrun imatrix`: how strongly typical text drives each column of each matrix."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqrun.cli import options, ui

if TYPE_CHECKING:
    from iqrun.quantizer import Imatrix, TensorStatistics

HELP = "compute an importance matrix from a text"
EXAMPLES = """\
  iqrun imatrix -m model-f16.gguf -f calibration.txt -o model.imatrix.gguf
  iqrun imatrix -m model-f16.gguf -f calibration.txt -o full.imatrix.gguf --full --resume
  iqrun imatrix --merge a.imatrix.gguf --merge b.dat -o both.dat
  iqrun imatrix --merge model.imatrix.gguf --show -m model-f16.gguf
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add = parser.add_argument
    add("-m", "--model", metavar="FILE", help="GGUF file, best unquantized (any file of a split model)")
    options.add_text_options(parser, required=False)
    add("-o", "--output", metavar="OUT", help="the file to write: .dat for the older format, anything else GGUF")
    add("--full", action="store_true", help="also the second-moment matrix of every input (for error feedback)")
    add("--merge", metavar="FILE", action="append", default=[], help="add the sums of this file; repeatable")
    add("--resume", action="store_true", help="go on where the same command was stopped")
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add("--memory", type=int, default=2048, metavar="MIB", help="for --full: memory for the matrices (default 2048)")
    add(
        "--show",
        action="store_true",
        help="print statistics per tensor, the most sensitive first (with -m; without "
        "a model, those with the strongest input)",
    )
    add("--json", action="store_true", help="print an object")
    options.add_thread_option(parser)


def run(args: argparse.Namespace) -> int:
    """Computes or merges, and prints what came out."""
    from iqrun.calibration.calibrate import moments_of
    from iqrun.quantizer import statistics

    _check(args)
    matrix = _matrix(args)
    rows = statistics(moments_of(matrix, args.ctx), _sensitivity(args.model, matrix)) if args.show else []
    if args.json:
        ui.print_json({**_summary(matrix), **({"tensors": [asdict(row) for row in rows]} if args.show else {})})
    else:
        print("\n".join(([_table(rows), ""] if args.show else []) + [_sentence(matrix)]))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuses options that do not go together."""
    looks_only = args.show and args.merge and args.file is None
    if not looks_only and (args.model is None) != (args.file is None):
        raise ValueError("-m and -f go together: a model and the text to run through it")
    if args.file is None and not args.merge:
        raise ValueError("nothing to do: give -m and -f to compute, or --merge to add up files")
    if args.output is None and (not looks_only or len(args.merge) > 1):
        raise ValueError("-o is needed: the file to write (without it, --merge FILE --show looks at one file)")


def _matrix(args: argparse.Namespace) -> Imatrix:
    from iqrun.calibration.calibrate import merge_imatrices
    from iqrun.quantizer import read_imatrix

    if args.file is not None:
        return _compute(args)
    if args.output is None:
        return read_imatrix(args.merge[0])
    return merge_imatrices(args.merge, args.output, full=args.full, n_ctx=args.ctx, overwrite=args.overwrite)


def _sensitivity(model: str | None, matrix: Imatrix) -> dict[str, float] | None:
    """How sensitive each matrix is, if the model is given."""
    from iqrun import GGUFFile
    from iqrun.quantizer.sensitivity import sensitivities

    if model is None:
        return None
    with GGUFFile(model) as source:
        return sensitivities(source, matrix)


def _compute(args: argparse.Namespace) -> Imatrix:
    import iqrun

    text = Path(args.file).read_bytes().decode("utf-8", "replace")
    with ExitStack() as stack:
        model = stack.enter_context(iqrun.load(args.model, n_ctx=args.ctx, n_threads=args.threads))
        progress = stack.enter_context(ui.Progress("imatrix", unit="chunks"))
        return iqrun.calibrate(
            model,
            text,
            args.output,
            full=args.full,
            n_ctx=args.ctx,
            max_chunks=args.chunks,
            dataset=Path(args.file).name,
            merge=args.merge,
            resume=args.resume,
            overwrite=args.overwrite,
            gram_bytes=args.memory << 20,
            progress=progress,
        )


def _summary(matrix: Imatrix) -> dict[str, Any]:
    return {
        "path": matrix.path,
        "n_tensors": len(matrix.entries),
        "n_chunks": matrix.n_chunks,
        "datasets": list(matrix.datasets),
    }


def _sentence(matrix: Imatrix) -> str:
    texts = f" of {', '.join(ui.printable(name) for name in matrix.datasets)}" if matrix.datasets else ""
    return f"{matrix.path}: {len(matrix.entries)} tensors, {matrix.n_chunks} chunks{texts}"


def _table(rows: list[TensorStatistics]) -> str:
    headers = ("tensor", "columns", "sensitivity", "sum of squares", "norm", "entropy %", "dead %")
    cells = [
        (
            ui.printable(row.name),
            row.n_cols,
            "-" if row.sensitivity is None else f"{row.sensitivity:.4f}",
            f"{row.sum_of_squares:.4g}",
            f"{row.activation_norm:.4g}",
            f"{100 * row.entropy:.2f}",
            f"{100 * row.dead:.2f}",
        )
        for row in rows
    ]
    return ui.table(headers, cells)
