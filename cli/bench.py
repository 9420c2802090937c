"""`iqrun bench`: how fast a model runs here, and how near to the limit that memory sets."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from iqrun.cli import options, ui

if TYPE_CHECKING:
    from iqrun import Model
    from iqrun.benchmark import Measurement

HELP = "measure prefill and decode speed"
EXAMPLES = """\
  iqrun bench -m model.gguf
  iqrun bench -m model.gguf -p 0 -n 64 -t 2 --profile
  iqrun bench -m model.gguf --json > speed.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    options.add_model_options(parser)
    parser.add_argument("-p", "--n-prompt", type=int, default=512, metavar="N", help="tokens to prefill (default 512)")
    parser.add_argument("-n", "--n-decode", type=int, default=128, metavar="N", help="tokens to generate (default 128)")
    parser.add_argument("-r", "--repeats", type=int, default=5, metavar="N", help="repetitions (default 5)")
    parser.add_argument("--profile", action="store_true", help="show where the time of a generated token goes")
    parser.add_argument("--json", action="store_true", help="print a list of objects")


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    from iqrun import benchmark

    if args.profile and args.json:
        raise ValueError("--profile is for people: leave out --json")
    if args.ctx is None:
        args.ctx = max(args.n_prompt, args.n_decode, 1)
    with options.load_model(args) as model:
        results = list(benchmark.measure(model, n_prompt=args.n_prompt, n_decode=args.n_decode, repeats=args.repeats))
        if args.json:
            ui.print_json([asdict(result) for result in results])
        else:
            print(_report(results))
        if args.profile:
            print(_profile(model, min(args.n_decode or 64, model.n_ctx)))
    return 0


def _report(results: list[Measurement]) -> str:
    rows = [
        [r.test, r.n_tokens, f"{r.tokens_per_second:.2f}", f"{r.stddev:.2f}", r.threads, r.isa, _percent(r.roof_share)]
        for r in results
    ]
    table = ui.table(["test", "tokens", "tokens/s", "stddev", "threads", "isa", "of the roof"], rows)
    first = results[0]
    roof = first.read_bandwidth / first.weight_bytes_per_token
    return (
        f"{table}\n\n{ui.human_bytes(first.weight_bytes_per_token)} of weights per token, read at "
        f"{first.read_bandwidth / 1e9:.1f} GB/s: a roof of {roof:.1f} tokens/s"
    )


def _profile(model: Model, n_decode: int) -> str:
    from iqrun import benchmark

    parts = benchmark.profile(model, n_decode=n_decode)
    total = sum(seconds for _, seconds in parts) or 1.0
    rows = [[name, f"{1e6 * seconds:.1f}", _percent(seconds / total)] for name, seconds in parts]
    return "\n" + ui.table(["operation", "us per token", "share"], rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
