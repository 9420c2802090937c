"""Options that several commands share: which model to load, and how to choose tokens."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from iqrun.cli import sampling_flags, ui

if TYPE_CHECKING:
    from iqrun import Model, SamplingOptions


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``-m``, and how to load and run the model."""
    group = parser.add_argument_group("model")
    group.add_argument("-m", "--model", required=True, metavar="FILE", help="GGUF file (any file of a split model)")
    add_session_options(group)


def add_session_options(parser: argparse._ActionsContainer) -> None:
    """Adds ``-c``, ``-t``, ``--kv-type``, ``--memory`` and ``--no-mmap``."""
    add_context_option(parser)
    add_thread_option(parser)
    add_kv_option(parser)
    where = parser.add_mutually_exclusive_group()
    add_memory_option(where)
    where.add_argument("--no-mmap", action="store_true", help="read the weights into memory, do not map the file")


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


def add_kv_option(parser: argparse._ActionsContainer) -> None:
    """Adds ``--kv-type``."""
    parser.add_argument(
        "--kv-type",
        choices=("f16", "q8_0", "f32"),
        default="f16",
        help="type of cached keys and values (default %(default)s)",
    )


def add_memory_option(parser: argparse._ActionsContainer) -> None:
    """Adds ``--memory``."""
    parser.add_argument(
        "--memory",
        type=byte_size,
        metavar="SIZE",
        help="use no more memory than this, such as 450M: weights that do not fit are read from the disk for each "
        "token (default: what is free)",
    )


def add_text_options(parser: argparse._ActionsContainer, *, required: bool = True) -> None:
    """Adds the text that runs through a model, and how it is cut: ``--file``, ``--ctx``, ``--chunks``."""
    parser.add_argument("-f", "--file", required=required, metavar="TEXT", help="text file in UTF-8")
    parser.add_argument(
        "-c", "--ctx", type=int, default=512, metavar="N", help="tokens per chunk (default %(default)s)"
    )
    parser.add_argument("--chunks", type=int, metavar="N", help="only the first N chunks")


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


def byte_size(text: str) -> int:
    """A size such as ``2G``, ``700M``, ``1.5GiB`` or a plain number of bytes: what argparse makes of a SIZE.

    K, M and G are powers of 1000, as in the names of split models; KiB, MiB and GiB powers of 1024.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(iB|B)?|B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write it like 2G, 700M or 1.5GiB")
    number, unit, suffix = (part or "" for part in found.groups())
    power = " KMGT".index(unit.upper() or " ")
    base = 1024 if suffix.lower() == "ib" else 1000
    return round(float(number) * float(base**power))


def load_model(args: argparse.Namespace) -> Model:
    """The model that the options name."""
    import iqrun

    model = iqrun.load(
        args.model,
        n_ctx=args.ctx,
        n_threads=args.threads,
        kv_type=args.kv_type,
        copy=args.no_mmap,
        memory=args.memory,
    )
    tell_streaming(model)
    return model


def tell_streaming(model: Model) -> None:
    """Says on stderr that not all weights are in memory, if so: it is what speed will depend on."""
    if model.streaming is not None:
        name = ui.printable(Path(model.path).name)
        ui.stderr(f"{name} {model.streaming}; faster: a smaller type or -c (`iqrun fit` says which fit)")


def sampling(args: argparse.Namespace) -> SamplingOptions:
    """How the options say that tokens are chosen."""
    from iqrun import SamplingOptions

    return SamplingOptions(**sampling_flags.given(args))
