"""Options that several commands share: which model to load, and how to choose tokens."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iqrun import Model, SamplingOptions


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``-m``, ``-c``, ``-t`` and ``--kv-type``."""
    group = parser.add_argument_group("model")
    group.add_argument("-m", "--model", required=True, metavar="FILE", help="GGUF file (any file of a split model)")
    add_context_option(group)
    add_thread_option(group)
    group.add_argument(
        "--kv-type", choices=("f16", "f32"), default="f16", help="type of cached keys and values (default %(default)s)"
    )


def add_context_option(parser: argparse._ActionsContainer) -> None:
    """Adds ``-c``."""
    parser.add_argument(
        "-c",
        "--ctx",
        type=int,
        metavar="N",
        help="tokens in the context (default 4096, or the model's training if less)",
    )


def add_thread_option(parser: argparse._ActionsContainer) -> None:
    """Adds ``-t``."""
    parser.add_argument("-t", "--threads", type=int, metavar="N", help="threads (default: physical cores)")


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--temp``, ``--top-k`` and so on."""
    group = parser.add_argument_group("choice of tokens")
    group.add_argument(
        "--temp", type=float, default=0.8, metavar="T", help="temperature, 0 = always the best (default 0.8)"
    )
    group.add_argument("--top-k", type=int, default=40, metavar="K", help="among the K best, 0 = all (default 40)")
    group.add_argument(
        "--top-p", type=float, default=0.95, metavar="P", help="among the best with this share (default 0.95)"
    )
    group.add_argument(
        "--min-p", type=float, default=0.05, metavar="P", help="at least P times the best (default 0.05)"
    )
    group.add_argument(
        "--repeat-penalty", type=float, default=1.0, metavar="R", help="above 1: fewer repeats (default 1)"
    )
    group.add_argument("--seed", type=int, metavar="S", help="repeat a text (default: a new one each time)")


def load_model(args: argparse.Namespace) -> Model:
    """The model that the options name."""
    import iqrun

    return iqrun.load(args.model, n_ctx=args.ctx, n_threads=args.threads, kv_type=args.kv_type)


def sampling(args: argparse.Namespace) -> SamplingOptions:
    """How the options say that tokens are chosen."""
    from iqrun import SamplingOptions

    return SamplingOptions(
        temperature=args.temp,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        repeat_penalty=args.repeat_penalty,
        seed=args.seed,
    )
