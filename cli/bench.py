"""`iqrun bench`: how fast a model runs here, and how near to the limit that memory sets."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from iqrun.cli import options, ui

if TYPE_CHECKING:
    from iqrun import Model
    from iqrun.benchmark.timing import Measurement, Trial

HELP = "measure prefill and decode speed"
EXAMPLES = """\
  iqrun bench -m model.gguf
  iqrun bench -m a.gguf b.gguf -p 1,8,64,512 -n 64,128 -d 0,4096 --markdown
  iqrun bench --synthetic llama-1b:IQ2_K llama-1b:IQ4_K -p 0 -n 64 --out speed.svg
  iqrun bench -m model.gguf -p 0 -n 64 -t 2 --profile
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add = parser.add_argument
    add("-m", "--model", nargs="+", action="extend", default=[], metavar="FILE", help="GGUF files; repeatable")
    add(
        "--synthetic",
        nargs="+",
        action="extend",
        default=[],
        metavar="SIZE:TYPE",
        help="models of random weights, such as llama-1b:IQ2_K,IQ4_K or llama-1b:all, made in the temporary folder",
    )
    add("-p", "--n-prompt", type=_numbers, default=[512], metavar="N,...", help="tokens to prefill (default 512)")
    add("-n", "--n-decode", type=_numbers, default=[128], metavar="N,...", help="tokens to generate (default 128)")
    add("-d", "--depth", type=_numbers, default=[0], metavar="N,...", help="tokens in the cache before (default 0)")
    add("-r", "--repeats", type=int, default=5, metavar="N", help="repetitions (default 5)")
    add("--profile", action="store_true", help="show where the time of each test goes")
    add("--out", metavar="PICTURE", help="draw the speeds and the roof: .svg or .png")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of objects")
    form.add_argument("--csv", action="store_true", help="print comma-separated values")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    add("-c", "--ctx", type=int, metavar="N", help="tokens in the context (default: what the tests need)")
    options.add_thread_option(parser)
    options.add_kv_option(parser)
    options.add_memory_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    from iqrun import charts
    from iqrun.benchmark import report, synthetic, timing

    _check(args)
    made = [pair for text in args.synthetic for pair in synthetic.parse(text)]
    trials = timing.plan(args.n_prompt, args.n_decode, args.depth)
    results: list[Measurement] = []
    profiles: list[str] = []
    with closing(_files(args.model, made)) as files:
        for path in files:
            with _load(args, path, timing.context_of(trials)) as model:
                results += _measure(model, trials, args.repeats)
                if args.profile:
                    profiles += [_profile(model, trial) for trial in trials]
    _print(results, args)
    print("".join(profiles), end="")
    if args.out is not None:
        charts.save(report.plot(results), args.out)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuses what cannot be done, before the work."""
    from iqrun import charts

    if args.profile and (args.json or args.csv or args.markdown):
        raise ValueError("--profile is for people: leave out --json, --csv and --markdown")
    if not args.model and not args.synthetic:
        raise ValueError("nothing to measure: give -m FILE or --synthetic SIZE:TYPE")
    if args.out is not None:
        charts.check_picture(args.out)


def _files(paths: list[str], made: list[tuple[str, str]]) -> Generator[str, None, None]:
    """The files to measure, one after the other; each made-up one exists only while it is measured."""
    from iqrun.benchmark.synthetic import write_synthetic

    yield from paths
    for size, type_name in made:
        with tempfile.TemporaryDirectory(prefix="iqrun-") as folder:
            path = str(Path(folder) / f"{size}-{type_name}.gguf")
            with ui.Progress(f"making {size}:{type_name}", unit="B") as progress:
                write_synthetic(path, size, type_name, progress=progress)
            yield path


def _load(args: argparse.Namespace, path: str, n_ctx: int) -> Model:
    import iqrun

    model = iqrun.load(
        path,
        n_ctx=n_ctx if args.ctx is None else args.ctx,
        n_threads=args.threads,
        kv_type=args.kv_type,
        memory=args.memory,
    )
    options.tell_streaming(model)
    return model


def _measure(model: Model, trials: list[Trial], repeats: int) -> Iterator[Measurement]:
    from iqrun.benchmark import timing

    with ui.Progress(Path(model.path).name, unit="runs") as progress:
        yield from timing.measure(model, trials, repeats=repeats, progress=progress)


def _print(results: list[Measurement], args: argparse.Namespace) -> None:
    from iqrun.benchmark import report
    from iqrun.text_tables import csv_text, markdown_table

    objects = [asdict(result) for result in results]
    if args.json:
        ui.print_json(objects)
    elif args.csv:
        print(csv_text(objects), end="")
    elif args.markdown:
        print(markdown_table(report.HEADERS, report.cells(results)))
    else:
        rows = [[ui.printable(cell) for cell in row] for row in report.cells(results)]
        print(ui.table(report.HEADERS, rows))
        print("", *map(ui.printable, report.roofs(results)), sep="\n")


def _profile(model: Model, trial: Trial) -> str:
    from iqrun.benchmark import timing
    from iqrun.benchmark.report import percent

    parts = timing.profile(model, trial)
    total = sum(seconds for _, seconds in parts) or 1.0
    rows = [[name, f"{1e6 * seconds:.1f}", percent(seconds / total)] for name, seconds in parts]
    title = f"{ui.printable(Path(model.path).name)}, {trial}"
    return f"\n{title}\n{ui.table(['operation', 'us per token', 'share'], rows)}\n"


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 64,128") from None
