"""What must hold before the first tensor is touched: a job of hours must not fail for what could be seen at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from os import PathLike, fsdecode
from pathlib import Path
from typing import get_args

from iqrun.errors import QuantizeError, ResourceError
from iqrun.formats import Effort
from iqrun.gguf import GGUFFile
from iqrun.quantizer.recipes import Choice


def thread_count(n_threads: int | None, default: int) -> int:
    """The number of threads to use.

    Raises:
        ValueError: it is below 1.
    """
    if n_threads is not None and n_threads < 1:
        raise ValueError(f"n_threads is {n_threads}, but must be at least 1")
    return n_threads or default


def effort(name: str) -> None:
    """The search effort must be known.

    Raises:
        ValueError: it is not.
    """
    if name not in get_args(Effort):
        raise ValueError(f"effort {name!r} is unknown; choose one of {', '.join(get_args(Effort))}")


def one_aim(type_name: str | None, has_size: bool, best_mix: bool, has_types: bool) -> None:
    """What the types follow from must be clear.

    Raises:
        ValueError: it is not.
    """
    if (type_name is None) == (not has_size):
        raise ValueError("give either a type or a target size, not both or neither")
    if best_mix and type_name is None:
        raise ValueError("the best mix of a type's size needs the type; a target size has the best mix anyway")
    if has_types and not (has_size or best_mix):
        raise ValueError("types to include are for a mix that is searched: give a target size, or ask for the best mix")


def not_the_same_file(targets: Iterable[str | PathLike[str]], sources: Collection[str]) -> None:
    """No output must be an input, also through links.

    Raises:
        QuantizeError: one is.
    """
    for target in (Path(fsdecode(name)) for name in targets):
        for source in sources:
            if target.exists() and Path(source).exists() and target.samefile(source):
                raise QuantizeError(f"{target} is the input {source} itself; choose another name for the output")


def convertible(source: GGUFFile, choices: list[Choice], allow_requantize: bool) -> None:
    """Every tensor to convert must be readable, and not quantized already unless that is allowed.

    Raises:
        QuantizeError: naming the first that is not.
    """
    if not choices:
        raise QuantizeError(f"{source.path} has no tensors: nothing to quantize")
    converted = [choice.tensor for choice in choices if choice.target is not None]
    unknown = [tensor for tensor in converted if tensor.format is None]
    if unknown:
        what = f"tensor {unknown[0].name!r} is {unknown[0].type.name}, which iqrun cannot decode"
        raise QuantizeError(f"{source.path}: {what}; start from the model's F16, BF16 or F32 file")
    quantized = [tensor for tensor in converted if tensor.type.block_weights > 1]
    if quantized and not allow_requantize:
        what = f"{len(quantized)} tensors are quantized already ({quantized[0].name!r} is {quantized[0].type.name})"
        how = "start from the F16, BF16 or F32 file, or allow it (allow_requantize=True, --allow-requantize)"
        raise QuantizeError(f"{source.path}: {what}; {how}")


def target(path: Path, n_bytes: int, overwrite: bool) -> None:
    """The output can be written, as far as that can be known.

    Raises:
        QuantizeError: it exists, or its folder does not or is read-only.
        ResourceError: the disk has too little room.
    """
    targets([path], n_bytes, overwrite)


def targets(paths: Sequence[Path], n_bytes: int, overwrite: bool) -> None:
    """As `target`, for files of one folder that need `n_bytes` together."""
    for path in paths:
        real = path.resolve()
        if real.exists() and not real.is_file():
            raise QuantizeError(f"{path} is not a regular file; choose another name for the output")
        if real.exists() and not overwrite:
            how = "choose another name or allow overwriting (overwrite=True, --overwrite)"
            raise QuantizeError(f"{path} exists; {how}")
        if not real.parent.is_dir():
            raise QuantizeError(f"the folder {real.parent} does not exist; create it first")
        if not os.access(real.parent, os.W_OK | os.X_OK):
            raise QuantizeError(f"the folder {real.parent} is not writable; choose another")
        free = shutil.disk_usage(real.parent).free
        if free < n_bytes:
            raise ResourceError(f"{path} needs {n_bytes} bytes, but the disk has only {free} free; make room for it")
