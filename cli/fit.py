"""`iqrun fit`: which types of a model fit on this machine, and how fast they will run."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from iqrun.cli import options, ui

if TYPE_CHECKING:
    from iqrun.fitting import Board, Estimate, ModelShape, Recommendation

HELP = "say which types of a model fit here, and how fast they run"
EXAMPLES = """\
  iqrun fit
  iqrun fit 3b
  iqrun fit model-f16.gguf -c 8192
  iqrun fit 1.1b --memory 700M --json
"""

_SIZES = ("0.5b", "1b", "3b", "8b", "14b", "32b", "70b")  # without a model to ask about
_HEADERS = ("type", "file", "memory", "verdict", "tok/s", "quality")
_NARROW = 60  # characters per line, below which a column is left out


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add = parser.add_argument
    add(
        "model",
        nargs="?",
        metavar="FILE|SIZE",
        help="a GGUF file, or a number of weights such as 3b or 500m (without it: one line for each of several sizes)",
    )
    add("-c", "--ctx", type=int, default=4096, metavar="N", help="tokens in the context (default %(default)s)")
    options.add_thread_option(parser)
    options.add_kv_option(parser)
    add("--memory", type=options.byte_size, metavar="SIZE", help="as if so much memory were free, such as 450M")
    add("--json", action="store_true", help="print every figure as JSON")


def run(args: argparse.Namespace) -> int:
    """Measures the machine, then prints the table and the advice."""
    from iqrun import fitting

    if args.ctx < 1:
        raise ValueError(f"-c {args.ctx}: the context must hold at least one token")
    shapes = [fitting.shape_of(name) for name in ([args.model] if args.model is not None else _SIZES)]
    file = args.model if args.model is not None and Path(args.model).is_file() else None
    board = fitting.measure_board(file, n_threads=args.threads, free_memory=args.memory)
    if args.model is None:
        _show_sizes(args, board, shapes)
    else:
        _show_model(args, board, shapes[0])
    return 0


def _show_model(args: argparse.Namespace, board: Board, shape: ModelShape) -> None:
    from iqrun import fitting

    estimates = fitting.estimate_all(shape, board, args.ctx, args.kv_type)
    advice = fitting.recommend(shape, board, args.ctx, args.kv_type)
    if args.json:
        ui.print_json({"board": asdict(board), "types": [asdict(e) for e in estimates], "advice": asdict(advice)})
        return
    print(_board(board))
    print(f"{ui.printable(shape.name)}: {shape.n_weights / 1e9:.2f} billion weights, context {args.ctx}\n")
    print(_table([], [_cells(estimate) for estimate in estimates]))
    print(f"\n{_advice(advice)}")


def _show_sizes(args: argparse.Namespace, board: Board, shapes: list[ModelShape]) -> None:
    from iqrun import fitting

    found = [(shape.name, fitting.recommend(shape, board, args.ctx, args.kv_type)) for shape in shapes]
    if args.json:
        ui.print_json({"board": asdict(board), "sizes": {name: asdict(advice) for name, advice in found}})
        return
    print(_board(board) + "\n")
    print(_table(["size"], [[name, *_cells(advice.estimate)] for name, advice in found]))
    print("\n`iqrun fit SIZE` and `iqrun fit FILE` show all types of one model.")


def _board(board: Board) -> str:
    disk = "" if board.disk_speed is None else f", disk {_rate(board.disk_speed)}"
    return (
        f"{ui.printable(board.cpu)}, {board.n_threads} threads, {board.isa}\n"
        f"{_size(board.free_memory)} free, memory {_rate(board.read_bandwidth)}{disk}"
    )


def _table(before: list[str], rows: list[list[str]]) -> str:
    """The table of `_cells`, with columns before them; on a narrow terminal without the size of the file."""
    headers = [*before, *_HEADERS]
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < _NARROW:
        left_out = headers.index("file")
        headers, *rows = [[*row[:left_out], *row[left_out + 1 :]] for row in [headers, *rows]]
    return ui.table(headers, rows)


def _cells(estimate: Estimate) -> list[str]:
    """The cells below `_HEADERS`."""
    from iqrun import fitting

    speed = estimate.tokens_per_second
    return [
        estimate.type + ("*" if estimate.own else ""),
        _size(estimate.file_bytes),
        _size(estimate.memory_bytes),
        fitting.verdict(estimate),
        "-" if speed is None else f"{speed:.{0 if speed >= 100 else 1 if speed >= 1 else 2}f}",
        estimate.quality or "-",
    ]


def _advice(advice: Recommendation) -> str:
    estimate = advice.estimate
    if not estimate.fits:
        return f"Take a smaller model: {advice.reason}."
    return f"Take {estimate.type} with -c {estimate.n_ctx} (up to {advice.n_ctx_max} fits): {advice.reason}."


def _size(n_bytes: float) -> str:
    """In powers of 1000, as the sizes of files and boards are named: ``640 MB``, ``2.2 GB``."""
    if n_bytes < 999.5e6:
        return f"{n_bytes / 1e6:.0f} MB"
    return f"{n_bytes / 1e9:.{1 if n_bytes < 99.95e9 else 0}f} GB"


def _rate(bytes_per_second: float) -> str:
    return f"{_size(bytes_per_second)}/s"
