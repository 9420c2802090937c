"""Options that several commands share: which model to load, and how to choose tokens."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from iqrun.cli import sampling_flags

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
    sampling_flags.add_to(parser)


def weight_type(text: str) -> str:
    """The name of a type that iqrun writes, in capitals: what argparse makes of a TYPE."""
    from iqrun.errors import FormatError
    from iqrun.formats import by_name

    try:
        found = by_name(text)
    except FormatError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not found.can_encode:
        raise argparse.ArgumentTypeError(f"iqrun reads {found.name} but does not write it")
    return found.name


def load_model(args: argparse.Namespace) -> Model:
    """The model that the options name."""
    import iqrun

    return iqrun.load(args.model, n_ctx=args.ctx, n_threads=args.threads, kv_type=args.kv_type)


def sampling(args: argparse.Namespace) -> SamplingOptions:
    """How the options say that tokens are chosen."""
    from iqrun import SamplingOptions

    return SamplingOptions(**sampling_flags.given(args))
