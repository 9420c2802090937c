"""A model in each type that it could be quantized to: as the quantizer would write it, and as the engine would run it,
without either: sizes come from the header that would be written, memory from the engine's own account of its program.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from tempfile import TemporaryFile

import numpy as np
import numpy.typing as npt

from iqrun.engine.lowering import NativeProgram
from iqrun.fitting.quality import DIVERGENCE
from iqrun.formats import FORMATS
from iqrun.gguf import GGUFFile, TensorInfo
from iqrun.model import build_program
from iqrun.program import Program
from iqrun.quantizer.planning import Planner
from iqrun.quantizer.recipes import Recipe

TYPES = (*sorted(DIVERGENCE, key=lambda name: -DIVERGENCE[name]), "F16")


@dataclass(frozen=True)
class Candidate:
    """A model in one type.

    Attributes:
        type: its name; own: the file is of that type now.
        file_bytes: of the file, with the mix of types that the recipe makes of it.
        n_weights: of all tensors; n_ctx_train: tokens that the model was trained with.
        native: the program, for its account of memory. It cannot run: there are no weights.
    """

    type: str
    own: bool
    file_bytes: int
    n_weights: int
    n_ctx_train: int
    native: NativeProgram


def candidates(source: GGUFFile) -> Iterator[Candidate]:
    """The model in every type of `TYPES`, and its own.

    Raises:
        GGUFError: the file is damaged.
        UnsupportedModelError: iqrun does not run its architecture.
    """
    program, own = build_program(source), main_type(source)
    facts = (
        sum(tensor.n_weights for tensor in source.tensors.values()),
        source.metadata.get_uint(f"{program.arch}.context_length"),
    )
    hole = _hole(max(4 * tensor.n_weights for tensor in source.tensors.values()))
    if own is not None:
        yield Candidate(own, True, source.file_bytes, *facts, NativeProgram(program))
    for name in TYPES:
        if name != own:
            file_bytes, tensors = _quantized(source, name)
            native = NativeProgram(_retyped(program, tensors, hole))
            yield Candidate(name, False, file_bytes, *facts, native)
    source.forget()  # what building the program read is no memory that a model needs


def main_type(source: GGUFFile) -> str | None:
    """The quantized type that holds most of the matrices' bytes; None if they are not quantized."""
    held: dict[str, int] = {}
    for tensor in source.tensors.values():
        if len(tensor.shape) > 1:
            held[tensor.type.name] = held.get(tensor.type.name, 0) + tensor.n_bytes
    name = max(held, key=lambda name: held[name], default="F16")
    return None if name in ("F16", "BF16", "F32") else name


def _quantized(source: GGUFFile, name: str) -> tuple[int, Mapping[str, TensorInfo]]:
    """Size and tensors of the file that ``iqrun quantize`` would write."""
    main = FORMATS[name]
    planner = Planner(source, None, None, hashes=False, max_shard_bytes=None)
    plan = planner.plans([planner.job(choice) for choice in Recipe(main).choose_all(source)], main, "")[0]
    return plan.file_bytes, {tensor.name: tensor for tensor in plan.tensors}


def _retyped(program: Program, tensors: Mapping[str, TensorInfo], hole: npt.NDArray[np.uint8]) -> Program:
    """The same program with the weights that the quantizer changes in their new types, without their bytes."""
    changed = []
    for weight in program.weights:
        tensor = tensors.get(weight.name)
        if tensor is not None and tensor.type_id != weight.type_id:
            data = hole[: tensor.n_bytes]
            changed.append(replace(weight, type_id=tensor.type_id, type_name=tensor.type.name, data=data))
    return program.with_weights(changed)


def _hole(n_bytes: int) -> npt.NDArray[np.uint8]:
    """Memory that takes no room as long as nobody reads it."""
    with TemporaryFile(prefix="iqrun-") as file:
        file.truncate(n_bytes)
        return np.frombuffer(mmap.mmap(file.fileno(), n_bytes, access=mmap.ACCESS_READ), np.uint8)
