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
    from iqrun.fitting import Candidate, Estimate, Estimator, Recommendation

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
    add(
        "--memory",
        type=options.byte_size,
        metavar="SIZE",
        help="bytes that the process may use, such as 450M (default: what is free)",
    )
    add("--json", action="store_true", help="print every figure as JSON")


def run(args: argparse.Namespace) -> int:
    """Measures the machine, then prints the table and the advice."""
    if args.ctx < 1:
        raise ValueError(f"-c {args.ctx}: the context must hold at least one token")
    if args.model is None:
        _show_sizes(args, _measure(args))
        return 0
    found = _candidates(args.model)
    file = args.model if Path(args.model).is_file() else None
    _show_model(args, _measure(args, file), args.model, found)
    return 0


def _measure(args: argparse.Namespace, file: str | None = None) -> Estimator:
    from iqrun import fitting

    return fitting.Estimator(fitting.measure_board(file, n_threads=args.threads), args.kv_type, args.memory)


def _candidates(name: str) -> list[Candidate]:
    from iqrun import fitting

    with fitting.open_source(name) as source:
        return list(fitting.candidates(source))


def _show_model(args: argparse.Namespace, estimator: Estimator, name: str, found: list[Candidate]) -> None:
    estimates = estimator.estimate_all(found, args.ctx)
    advice = estimator.recommend(found, args.ctx)
    board = _facts(estimator)
    if args.json:
        ui.print_json({"board": board, "types": [asdict(e) for e in estimates], "advice": asdict(advice)})
        return
    print(_board(estimator))
    print(f"{ui.printable(name)}: {found[0].n_weights / 1e9:.2f} billion weights, context {args.ctx}\n")
    print(_table([], [_cells(estimate) for estimate in estimates]))
    print(f"\n{_advice(advice)}")


def _show_sizes(args: argparse.Namespace, estimator: Estimator) -> None:
    advice = [(name, estimator.recommend(_candidates(name), args.ctx)) for name in _SIZES]
    if args.json:
        ui.print_json({"board": _facts(estimator), "sizes": {name: asdict(one) for name, one in advice}})
        return
    print(_board(estimator) + "\n")
    print(_table(["size"], [[name, *_cells(one.estimate)] for name, one in advice]))
    print("\n`iqrun fit SIZE` and `iqrun fit FILE` show all types of one model.")


def _facts(estimator: Estimator) -> dict[str, object]:
    return {**asdict(estimator.board), "memory": estimator.memory}


def _board(estimator: Estimator) -> str:
    board = estimator.board
    disk = "" if board.disk_speed is None else f", disk {_rate(board.disk_speed)}"
    within = "" if estimator.memory is None else f", of which {_size(estimator.memory)} may be used"
    return (
        f"{ui.printable(board.cpu)}, {board.n_threads} threads, {board.isa}\n"
        f"{_size(board.free_memory)} free{within}; memory {_rate(board.read_bandwidth)}{disk}"
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
    from iqrun import fitting

    estimate = advice.estimate
    if estimate.fits:
        return f"Take {estimate.type} with -c {estimate.n_ctx} (up to {advice.n_ctx_max} fits): {advice.reason}."
    if (estimate.tokens_per_second or 0) >= fitting.PACE:
        return f"Take {estimate.type} with -c {estimate.n_ctx}: {advice.reason}."
    return f"Take a smaller model: {advice.reason}."


def _size(n_bytes: float) -> str:
    """In powers of 1000, as the sizes of files and boards are named: ``640 MB``, ``2.2 GB``."""
    if n_bytes < 999.5e6:
        return f"{n_bytes / 1e6:.0f} MB"
    return f"{n_bytes / 1e9:.{1 if n_bytes < 99.95e9 else 0}f} GB"


def _rate(bytes_per_second: float) -> str:
    return f"{_size(bytes_per_second)}/s"
