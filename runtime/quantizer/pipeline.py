"""`quantize`: from one GGUF file to a smaller one, in a single pass with bounded memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from math import sqrt
from os import PathLike, fsdecode
from pathlib import Path, PurePath

import numpy as np

from iqrun import formats
from iqrun.formats import Effort, Format
from iqrun.gguf import GGUFFile, GGUFPlan, GGUFWriter, ValueType, keys
from iqrun.machine import physical_cores
from iqrun.quantizer import checks
from iqrun.quantizer.imatrix import Imatrix, read_imatrix
from iqrun.quantizer.recipes import LOW_BIT, OUTPUT, TOKEN_EMBEDDING, Choice, Recipe
from iqrun.quantizer.report import QuantizeReport, TensorReport
from iqrun.quantizer.stream import Floats, Job, encode_all

StrPath = str | PathLike[str]
Progress = Callable[[int, int, str], object]

_QUANTIZATION_VERSION = 2  # of the block formats, as the field counts
_STALE_KEYS = re.compile(r"split\.|quantize\.|iqrun\.")  # they describe the old file


def quantize(
    src: StrPath,
    dst: StrPath,
    type: str,  # noqa: A002
    *,
    imatrix: StrPath | Imatrix | None = None,
    pure: bool = False,
    tensor_types: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    keep_f32: str | None = None,
    effort: Effort = "normal",
    n_threads: int | None = None,
    allow_requantize: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> QuantizeReport:
    """Writes a quantized copy of a GGUF model.

    The tensors are streamed: memory holds a few MiB of weights per thread. `dst` appears when it is complete; on any
    failure nothing is left behind. The bytes depend on the input and the options only, not on the threads. Rows are
    encoded for the least squared error and then scaled to the strength of the original (`iqrun.quantizer.gain`).

    Args:
        src: the model, F32, F16 or BF16; of a split model any shard.
        dst: the file to write.
        type: ``"IQ3_K"`` and so on, upper or lower case; also ``"F32"``, ``"F16"``, ``"BF16"``.
        imatrix: importance matrix (GGUF or legacy .dat), as a path or read already.
        pure: every matrix in `type`, token embedding and output included, instead of the type's mix.
        tensor_types: pairs (regular expression, type); the first that is found in a tensor's name decides.
        output_type: type of the output matrix.
        embedding_type: type of the token embedding.
        keep_f32: tensors in whose name this regular expression is found are stored as F32.
        effort: how hard to search: ``"fast"``, ``"normal"`` or ``"best"``.
        n_threads: threads to use, by default one per physical core.
        allow_requantize: take a model that is quantized already; what it lost stays lost.
        overwrite: replace `dst` if it exists.
        dry_run: check, choose and compute the sizes, but encode and write nothing.
        progress: called as ``progress(weights_done, weights_total, tensor_name)`` after each piece; what it raises
            stops the job.

    Returns:
        What was done, per tensor and in total. The relative errors are measured on all weights.

    Raises:
        GGUFError: `src` cannot be read, or `dst` cannot be written.
        FormatError: a type is unknown.
        QuantizeError: the job makes no sense as asked, or a weight is not finite.
        ResourceError: the disk is too small.
        ValueError: `effort` or `n_threads` is out of range.

    Example:
        >>> report = iqrun.quantize("model-f16.gguf", "model-iq3k.gguf", "IQ3_K", imatrix="model.imatrix")
        >>> print(report.bpw, max(t.relative_error for t in report.tensors))
    """
    started = time.monotonic()
    main = formats.by_name(type)
    recipe = Recipe(
        main,
        pure=pure,
        tensor_types=tensor_types,
        output_type=output_type,
        embedding_type=embedding_type,
        keep_f32=keep_f32,
    )
    n_threads = checks.thread_count(n_threads, physical_cores())
    checks.effort(effort)
    matrix = imatrix if imatrix is None or isinstance(imatrix, Imatrix) else read_imatrix(imatrix)
    with GGUFFile(src) as source:
        checks.not_the_same_file(dst, [*source.paths, *([] if matrix is None else [matrix.path])])
        tied = OUTPUT not in source.tensors
        choices = [recipe.choose(tensor, tied=tied) for tensor in source.tensors.values()]
        checks.convertible(source, choices, allow_requantize)
        jobs = [Job(choice, _importance(choice, matrix, tied)) for choice in choices]
        plan = _plan(source, choices, main, matrix)
        errors: list[float | None] = [None] * len(jobs)
        if not dry_run:
            checks.target(Path(fsdecode(dst)), plan.file_bytes, overwrite)
            errors = _write(source, Path(fsdecode(dst)), plan, jobs, effort, n_threads, overwrite, progress)
        return QuantizeReport(
            source=source.path,
            destination=fsdecode(dst),
            type=main.name,
            effort=effort,
            imatrix=None if matrix is None else matrix.path,
            source_bytes=source.file_bytes,
            n_bytes=plan.file_bytes,
            seconds=time.monotonic() - started,
            dry_run=dry_run,
            warnings=(*_warnings(jobs, main, matrix), *_unmatched(recipe, source)),
            tensors=tuple(_tensor_report(job, error) for job, error in zip(jobs, errors, strict=True)),
        )


def _importance(choice: Choice, matrix: Imatrix | None, tied: bool) -> Floats | None:
    """The importance of a tensor's columns, scaled to mean 1; None where it would change nothing or is not known."""
    target = choice.target
    if matrix is None or target is None or target.block_weights == 1 or target is choice.tensor.format:
        return None
    values = matrix.of(choice.tensor)
    if values is None and tied and choice.tensor.name == TOKEN_EMBEDDING:
        values = matrix.of(choice.tensor, OUTPUT)
    if values is None or not values.any():
        return None
    scale = values.mean(axis=1, keepdims=True, dtype=np.float64)
    return np.where(scale > 0, values / np.where(scale > 0, scale, 1), 1).astype(np.float32)


def _plan(source: GGUFFile, choices: list[Choice], main: Format, matrix: Imatrix | None) -> GGUFPlan:
    """The new file's header: the old metadata with what has changed, and the tensors in the same order."""
    plan = GGUFPlan(alignment=source.alignment)
    for key in source.metadata:
        if not _STALE_KEYS.match(key):
            plan.copy(source.metadata, key)
    if main.file_type >= 0:
        plan.set(keys.FILE_TYPE, main.file_type, ValueType.UINT32)
    else:
        plan.remove(keys.FILE_TYPE)
    plan.set(keys.QUANTIZATION_VERSION, _QUANTIZATION_VERSION, ValueType.UINT32)
    _add_provenance(plan, matrix)
    for choice in choices:
        type_id = choice.tensor.type_id if choice.target is None else choice.target.id
        plan.add_tensor(choice.tensor.name, choice.tensor.shape, type_id)
    return plan


def _add_provenance(plan: GGUFPlan, matrix: Imatrix | None) -> None:
    """What made the file. Names only: the folders of whoever made it are nobody's business."""
    from importlib.metadata import version

    plan.set(keys.IQRUN_VERSION, version("iqrun"), ValueType.STRING)
    if matrix is None:
        return
    plan.set(keys.QUANTIZE_IMATRIX_FILE, Path(matrix.path).name, ValueType.STRING)
    if matrix.dataset:
        plan.set(keys.QUANTIZE_IMATRIX_DATASET, PurePath(matrix.dataset).name, ValueType.STRING)
    plan.set(keys.QUANTIZE_IMATRIX_N_ENTRIES, len(matrix.entries), ValueType.UINT32)
    if matrix.n_chunks:
        plan.set(keys.QUANTIZE_IMATRIX_N_CHUNKS, matrix.n_chunks, ValueType.UINT32)


def _write(
    source: GGUFFile,
    path: Path,
    plan: GGUFPlan,
    jobs: list[Job],
    effort: Effort,
    n_threads: int,
    overwrite: bool,
    progress: Progress | None,
) -> list[float | None]:
    """Streams all tensors into the new file; returns their relative errors."""
    total = sum(job.choice.tensor.n_weights for job in jobs)
    errors: list[float | None] = []
    done, error, norm = 0, 0.0, 0.0
    stream = encode_all(source, jobs, effort, n_threads)
    with GGUFWriter(path, plan, overwrite=overwrite) as writer, closing(stream):
        for encoded in stream:
            writer.write(encoded.data)
            done += encoded.piece.n_weights
            error, norm = error + encoded.error, norm + encoded.norm
            if encoded.piece.is_end:
                errors.append(sqrt(error / norm) if norm > 0 else 0.0)
                error, norm = 0.0, 0.0
            if progress is not None:
                progress(done, total, encoded.piece.job.choice.tensor.name)
    return errors


def _tensor_report(job: Job, relative_error: float | None) -> TensorReport:
    choice = job.choice
    tensor, target = choice.tensor, choice.target
    n_bytes = tensor.n_bytes if target is None else tensor.n_rows * target.row_bytes(tensor.n_cols)
    return TensorReport(
        name=tensor.name,
        shape=tensor.shape,
        source=tensor.type.name,
        target=tensor.type.name if target is None else target.name,
        fallback=choice.wanted.name if choice.fallback and choice.wanted is not None else None,
        n_bytes=n_bytes,
        weighted=job.importance is not None,
        relative_error=relative_error,
    )


def _warnings(jobs: list[Job], main: Format, matrix: Imatrix | None) -> tuple[str, ...]:
    found = []
    if matrix is None and main.name in LOW_BIT:
        found.append(f"{main.name} without an importance matrix loses more than it must; compute one and pass it")
    low_bit = [job for job in jobs if job.choice.target is not None and job.choice.target.name in LOW_BIT]
    blind = [job.choice.tensor.name for job in low_bit if job.importance is None]
    if matrix is not None and blind:
        found.append(f"the importance matrix says nothing about {_listed(blind)}: encoded without it")
    replaced = [job.choice.tensor.name for job in jobs if job.choice.fallback]
    if replaced:
        found.append(f"rows that do not fill whole blocks got a wider type: {_listed(replaced)}")
    return tuple(found)


def _unmatched(recipe: Recipe, source: GGUFFile) -> list[str]:
    return [
        f"the regular expression {regex!r} is found in no tensor's name" for regex in recipe.unmatched(source.tensors)
    ]


def _listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
