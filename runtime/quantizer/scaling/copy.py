"""A scaled copy of a model, for as long as it takes to quantize it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any

import numpy as np

from iqrun import formats
from iqrun.errors import GGUFError, QuantizeError
from iqrun.gguf import GGUFFile, GGUFPlan, GGUFWriter, TensorInfo, ValueType, keys
from iqrun.machine import physical_cores
from iqrun.program import Program
from iqrun.quantizer import checks
from iqrun.quantizer.imatrix import Imatrix, read_imatrix
from iqrun.quantizer.jobs import Bytes
from iqrun.quantizer.mix import CANDIDATES
from iqrun.quantizer.recipes import Recipe
from iqrun.quantizer.rows import read_weights
from iqrun.quantizer.scaling.factors import Scaling
from iqrun.quantizer.scaling.search import find_scaling

StrPath = str | PathLike[str]

_PIECE_WEIGHTS = 1 << 20
_MARK = "temporary copy"
_KEPT_TYPES = frozenset({"F32", "F16"})  # BF16 would round as coarsely as six-bit types do; it becomes F32


@dataclass(frozen=True)
class ScaledModel:
    """What `iqrun.quantizer.quantize` takes in place of the original.

    Attributes:
        path: the scaled copy.
        imatrix: the importance matrix of the copy.
        scaling: how it differs.
        source: the original.
        source_bytes: its size.
    """

    path: str
    imatrix: Imatrix
    scaling: Scaling
    source: str
    source_bytes: int


def recipe_like(
    source: GGUFFile, type_name: str | None, *, target_bpw: float | None, target_bytes: int | None, **named: Any
) -> Recipe:
    """The recipe of a type; for a mix that is still to be searched, that of the IQ*_K type nearest to its size.

    Args:
        source: the model.
        type_name: the type, if there is one.
        target_bpw: bits per weight otherwise.
        target_bytes: or bytes of the whole file.
        named: as for `Recipe`.
    """
    if type_name is not None:
        return Recipe(formats.by_name(type_name), **named)
    if target_bpw is None:
        target_bpw = 8 * (target_bytes or 0) / max(1, sum(info.n_weights for info in source.tensors.values()))
    return Recipe(min(map(formats.by_name, CANDIDATES), key=lambda row: abs(row.bpw - target_bpw)), **named)


@contextmanager
def scaled_model(
    source: GGUFFile,
    program: Program,
    dst: StrPath,
    recipe: Recipe,
    imatrix: StrPath | Imatrix,
    *,
    n_threads: int | None = None,
    overwrite: bool = True,
    progress: Callable[[int, int, str], object] = lambda *_: None,
) -> Iterator[ScaledModel]:
    """Scales a model for quantization; the copy lies beside `dst`, as ``DST.scaled``, until the block is left.

    The copy is as large as the original (twice that if it is BF16), the same whenever it is made, and of the same age,
    so that an unfinished `iqrun.quantizer.quantize` can be resumed with it. One that a killed process has left behind
    is replaced.

    Args:
        source: the model, F32, F16 or BF16.
        program: of the same model (`iqrun.model.build_program`): it says what may be scaled.
        dst: the file that the quantized model is to have; it is not touched.
        recipe: what the tensors will become.
        imatrix: importance matrix, as a path or read already.
        n_threads: threads to use, by default one per physical core.
        overwrite: whether `dst` may exist; it is looked at before anything is computed.
        progress: called as ``progress(done, total, tensor_name)`` while factors are tried; what it raises stops it.

    Raises:
        GGUFError: another program writes to the model.
        QuantizeError: the importance matrix does not fit, a weight is not finite, the model is quantized already,
            `dst` exists, or a file that is no such copy has its name.
        ResourceError: the disk is too small.

    Example:
        >>> recipe = Recipe(formats.by_name("IQ3_K"))
        >>> with GGUFFile("model-f16.gguf") as source:
        ...     with scaled_model(source, build_program(source), dst, recipe, "model.imatrix") as scaled:
        ...         quantize(scaled.path, dst, "IQ3_K", imatrix=scaled.imatrix, scaled=True)
    """
    path = Path(fsdecode(dst) + ".scaled").resolve()
    matrix = imatrix if isinstance(imatrix, Imatrix) else read_imatrix(imatrix)
    threads = checks.thread_count(n_threads, physical_cores())
    checks.not_the_same_file([dst, path], [*source.paths, matrix.path])
    checks.target(Path(fsdecode(dst)), 0, overwrite)
    if path.exists() and not _is_copy(path):
        raise QuantizeError(f"{path} is in the way of the scaled copy; move it, or choose another name for the output")
    scaling = find_scaling(source, program, recipe.choose_all(source), matrix, threads, progress)
    try:
        write_scaled(source, scaling, path)
        yield ScaledModel(str(path), scaling.imatrix(matrix), scaling, source.path, source.file_bytes)
    finally:
        path.unlink(missing_ok=True)


def write_scaled(source: GGUFFile, scaling: Scaling, path: Path) -> None:
    """Writes the scaled copy of a model; an existing file is replaced.

    Raises:
        QuantizeError: a tensor to scale is not finite, quantized already, or too large for its type then.
        ResourceError: the disk is too small.
    """
    plan = GGUFPlan(alignment=source.alignment)
    for key in source.metadata:
        if not key.startswith("split."):
            plan.copy(source.metadata, key)
    plan.set(keys.IQRUN_SCALING, _MARK, ValueType.STRING)
    for info in source.tensors.values():
        plan.add_tensor(info.name, info.shape, _type_id(source, info, scaling))
    checks.target(path, plan.file_bytes, overwrite=True)
    with GGUFWriter(path, plan, overwrite=True) as writer:
        for info, new in zip(source.tensors.values(), plan.tensors, strict=True):
            for first, last in _ranges(info):
                writer.write(_rows(source, info, new, scaling, first, last))
        source.check_unchanged()
    newest = max(Path(name).stat().st_mtime_ns for name in source.paths)
    os.utime(path, ns=(newest, newest))


def _is_copy(path: Path) -> bool:
    try:
        with GGUFFile(path) as file:
            return file.metadata.get_str(keys.IQRUN_SCALING, "") == _MARK
    except GGUFError:
        return False


def _type_id(source: GGUFFile, info: TensorInfo, scaling: Scaling) -> int:
    if info.name not in scaling.names or info.type.name in _KEPT_TYPES:
        return info.type_id
    if info.type.block_weights > 1:
        what = f"tensor {info.name!r} is {info.type.name}, quantized already"
        raise QuantizeError(f"{source.path}: {what}: scaling needs the F32, F16 or BF16 file")
    return formats.by_name("F32").id


def _ranges(info: TensorInfo) -> Iterator[tuple[int, int]]:
    step = max(1, _PIECE_WEIGHTS // info.n_cols)
    for first in range(0, info.n_rows, step):
        yield first, min(first + step, info.n_rows)


def _rows(source: GGUFFile, info: TensorInfo, new: TensorInfo, scaling: Scaling, first: int, last: int) -> Bytes:
    if info.name not in scaling.names:
        rows: Bytes = source.tensor_rows(info.name)[first:last].copy()
        source.release_rows(info.name, first, last)
        return rows
    weights = scaling.apply(info.name, first, read_weights(source, info, first, last))
    data: Bytes = formats.encode(weights, new.type_id, n_threads=1)
    if not np.isfinite(formats.decode(data, new.type_id, info.n_cols, n_threads=1)).all():
        raise QuantizeError(f"{source.path}: tensor {info.name!r} has weights too large to scale; do without scaling")
    return data
