"""`iqrun perplexity`: how well a model predicts a text."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from iqrun.cli import options, ui

if TYPE_CHECKING:
    from iqrun import Model

HELP = "measure how well a model predicts a text"
EXAMPLES = """\
  iqrun perplexity -m model-iq3k.gguf -f heldout.txt
  iqrun perplexity -m model-iq3k.gguf -f heldout.txt -c 256 --kl-base model-f16.gguf
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("-m", "--model", required=True, metavar="FILE", help="GGUF file (any file of a split model)")
    options.add_text_options(parser)
    parser.add_argument(
        "--kl-base", metavar="FILE", help="also the KL divergence from this model (or llama.cpp's file of saved logits)"
    )
    parser.add_argument("--json", action="store_true", help="print an object")
    options.add_thread_option(parser)
    options.add_kv_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    import iqrun

    text = Path(args.file).read_bytes().decode("utf-8", "replace")
    with iqrun.load(args.model, n_ctx=args.ctx, n_threads=args.threads, kv_type=args.kv_type) as model:
        result = _perplexity(model, text, args) if args.kl_base is None else _divergence(model, text, args)
    if args.json:
        ui.print_json(result)
    else:
        print("\n".join(f"{name:<16} {_number(value)}" for name, value in result.items()))
    return 0


def _perplexity(model: Model, text: str, args: argparse.Namespace) -> dict[str, float]:
    import iqrun

    with ui.Progress("perplexity", unit="chunks") as progress:
        result = iqrun.perplexity(model, text, n_ctx=args.ctx, max_chunks=args.chunks, progress=progress)
    return {"ppl": result.ppl, "ppl_stderr": result.ppl_stderr, "n_tokens": result.n_tokens}


def _divergence(model: Model, text: str, args: argparse.Namespace) -> dict[str, float]:
    import iqrun
    from iqrun.evaluation.evaluate import open_base

    with (
        open_base(args.kl_base, n_ctx=args.ctx, n_threads=args.threads, kv_type=args.kv_type) as base,
        ui.Progress("divergence", unit="chunks") as progress,
    ):
        result = iqrun.divergence(model, base, text, n_ctx=args.ctx, max_chunks=args.chunks, progress=progress)
    figures = asdict(result)
    own, other = figures.pop("model"), figures.pop("base")
    return {
        "ppl": own["ppl"],
        "ppl_stderr": own["ppl_stderr"],
        "n_tokens": own["n_tokens"],
        "ppl_base": other["ppl"],
        "ppl_base_stderr": other["ppl_stderr"],
        **figures,
    }


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
