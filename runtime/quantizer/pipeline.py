"""`quantize`: from one GGUF file to a smaller one, in a single pass with bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from math import sqrt
from os import PathLike, fsdecode
from pathlib import Path

from iqrun import formats
from iqrun.formats import Effort, Format
from iqrun.gguf import GGUFFile
from iqrun.machine import physical_cores
from iqrun.quantizer import checks
from iqrun.quantizer.fingerprint import depends_on
from iqrun.quantizer.imatrix import Imatrix, read_imatrix
from iqrun.quantizer.jobs import Job, MatrixEncoder
from iqrun.quantizer.mix import Target
from iqrun.quantizer.output import Output
from iqrun.quantizer.planning import Planner, version
from iqrun.quantizer.recipes import LOW_BIT, Recipe
from iqrun.quantizer.report import QuantizeReport, TensorReport
from iqrun.quantizer.stream import encode_all

StrPath = str | PathLike[str]
Progress = Callable[[int, int, str], object]


def quantize(
    src: StrPath,
    dst: StrPath,
    type: str | None = None,  # noqa: A002
    *,
    imatrix: StrPath | Imatrix | None = None,
    pure: bool = False,
    tensor_types: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    keep_f32: str | None = None,
    best_mix: bool = False,
    target_bpw: float | None = None,
    target_bytes: int | None = None,
    include_types: Sequence[str] | None = None,
    sensitivity: Mapping[str, float] | Callable[[], Mapping[str, float]] | None = None,
    effort: Effort = "normal",
    n_threads: int | None = None,
    allow_requantize: bool = False,
    max_shard_bytes: int | None = None,
    hashes: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    encoder: MatrixEncoder | None = None,
    scaled: bool = False,
) -> QuantizeReport:
    """Writes a quantized copy of a GGUF model.

    The tensors are streamed: memory holds a few MiB of weights per thread. `dst` appears when it is complete; on any
    failure nothing is left behind, unless `resume` is set. The bytes depend on the input and the options only, not on
    the threads or on interruptions. Rows are encoded for the least squared error and then scaled to the strength of the
    original (`iqrun.quantizer.gain`).

    While it runs, the file grows in a folder ``DST.part``. A process that is killed leaves the folder behind; then a
    run with `resume` goes on after the finished tensors, and one without refuses to start unless `overwrite` is set.

    Args:
        src: the model, F32, F16 or BF16; of a split model any shard.
        dst: the file to write.
        type: ``"IQ3_K"`` and so on, upper or lower case; also ``"F32"``, ``"F16"``, ``"BF16"``. None if a size is given
            instead.
        imatrix: importance matrix (GGUF or legacy .dat), as a path or read already.
        pure: every matrix in `type`, token embedding and output included, instead of the type's mix.
        tensor_types: pairs (regular expression, type); the first that is found in a tensor's name decides.
        output_type: type of the output matrix.
        embedding_type: type of the token embedding.
        keep_f32: tensors in whose name this regular expression is found are stored as F32.
        best_mix: instead of the type's mix find the one of the same size, or smaller, that is estimated to change the
            model's predictions least (`iqrun.quantizer.mix`). What the options above settle stays settled.
        target_bpw: instead of `type`: find the best mix with at most so many bits per weight.
        target_bytes: instead of `type`: find the best mix whose finished files have at most so many bytes.
        include_types: the types to mix; by default every IQ*_K type and Q8_0.
        sensitivity: by tensor name, the divergence for a relative squared error of 1, as
            `iqrun.measure_sensitivity` measures it, or a function that does so when all is checked; by default it is
            estimated.
        effort: how hard to search: ``"fast"``, ``"normal"`` or ``"best"``.
        n_threads: threads to use, by default one per physical core.
        allow_requantize: take a model that is quantized already; what it lost stays lost.
        max_shard_bytes: write files of at most so many bytes, ``DST-00001-of-0000N.gguf`` and so on, if one would be
            larger. A tensor that is larger by itself gets a file of its own.
        hashes: store the SHA-256 of every tensor in the file (`iqrun.gguf.hashes`).
        resume: go on where an earlier run with the same input and options was stopped, if there is one; and keep the
            finished tensors if this one fails.
        overwrite: replace `dst` if it exists, and what an earlier run has left unless `resume` is set.
        dry_run: check, choose and compute the sizes, but encode and write nothing.
        progress: called as ``progress(weights_done, weights_total, tensor_name)`` after each piece, and with 0 weights
            done after each tensor that was looked at for a mix; what it raises stops the job.
        encoder: encodes the matrices that it handles in place of the row encoder.
        scaled: `src` is a copy scaled for quantization (`iqrun.quantizer.scaling`); the file says so.

    Returns:
        What was done, per tensor and in total. The relative errors are measured on all weights. Its destination is the
        first file if there are several.

    Raises:
        GGUFError: `src` cannot be read, or `dst` cannot be written.
        FormatError: a type is unknown.
        QuantizeError: the job makes no sense as asked, a weight is not finite, or what an earlier run has left does not
            fit this one.
        ResourceError: the disk is too small.
        ValueError: `effort`, `n_threads` or `max_shard_bytes` is out of range.

    Example:
        >>> report = iqrun.quantize("model-f16.gguf", "model-iq3k.gguf", "IQ3_K", imatrix="model.imatrix")
        >>> print(report.bpw, max(t.relative_error for t in report.tensors))
    """
    started = time.monotonic()
    target = Target.of(target_bpw, target_bytes, include_types)
    checks.one_aim(type, target is not None, best_mix, include_types is not None)
    main = None if type is None else formats.by_name(type)
    recipe = Recipe(
        main or formats.by_name("F16"),
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
        planner = Planner(source, matrix, encoder, hashes=hashes, max_shard_bytes=max_shard_bytes, scaled=scaled)
        choices = recipe.choose_all(source)
        checks.convertible(source, choices, allow_requantize)
        jobs = [planner.job(choice) for choice in choices]
        label = f"pure {main.name}" if pure and main is not None else ""
        if best_mix:
            target = Target.of(None, planner.file_bytes(jobs, label), include_types)
        if target is not None:
            if not (dry_run or resume or max_shard_bytes):
                checks.target(Path(fsdecode(dst)), 0, overwrite)
            known = sensitivity() if callable(sensitivity) else sensitivity
            rated = _rated(progress, source)
            jobs, label = planner.mix(choices, target, known, n_threads, rated), str(target)
        jobs = [planner.with_encoder(job) for job in jobs]
        main = main or _most_used(jobs)
        plans = planner.plans(jobs, main, label)
        depends = depends_on(source, jobs, plans, matrix, effort, version())
        output = Output(Path(fsdecode(dst)), plans, depends, resume=resume, overwrite=overwrite, hashes=hashes)
        checks.not_the_same_file(output.paths, [*source.paths, *([] if matrix is None else [matrix.path])])
        errors: Sequence[float | None] = [None] * len(jobs)
        if not dry_run:
            errors = _write(source, output, jobs, effort, n_threads, progress)
        return QuantizeReport(
            source=source.path,
            destination=fsdecode(dst) if len(plans) == 1 else str(output.paths[0]),
            type=main.name,
            effort=effort,
            imatrix=None if matrix is None else matrix.path,
            source_bytes=source.file_bytes,
            n_bytes=sum(part.file_bytes for part in plans),
            seconds=time.monotonic() - started,
            dry_run=dry_run,
            warnings=(*_warnings(jobs, main, matrix), *_unmatched(recipe, source)),
            tensors=tuple(_tensor_report(job, error) for job, error in zip(jobs, errors, strict=True)),
        )


def _rated(progress: Progress | None, source: GGUFFile) -> Callable[[str], object]:
    """A progress callback for the search of a mix."""
    total = sum(tensor.n_weights for tensor in source.tensors.values())
    return lambda name: None if progress is None else progress(0, total, name)


def _most_used(jobs: Sequence[Job]) -> Format:
    """The type that holds most of the weights."""
    n_weights: dict[Format, int] = {}
    for job in jobs:
        if job.choice.target is not None:
            n_weights[job.choice.target] = n_weights.get(job.choice.target, 0) + job.choice.tensor.n_weights
    return max(n_weights, key=lambda row: n_weights[row])


def _write(
    source: GGUFFile,
    output: Output,
    jobs: Sequence[Job],
    effort: Effort,
    n_threads: int,
    progress: Progress | None,
) -> list[float]:
    """Streams all tensors that are not there yet into the output; returns the relative errors of all."""
    total = sum(job.choice.tensor.n_weights for job in jobs)
    with output:
        n_finished = len(output.finished)
        done, error, norm = sum(job.choice.tensor.n_weights for job in jobs[:n_finished]), 0.0, 0.0
        with closing(encode_all(source, jobs[n_finished:], effort, n_threads)) as stream:
            for encoded in stream:
                output.write(encoded.data)
                done += encoded.piece.n_weights
                error, norm = error + encoded.error, norm + encoded.norm
                if encoded.piece.is_end:
                    source.check_unchanged()  # a tensor of other bytes must never count as finished
                    output.finish_tensor(sqrt(error / norm) if norm > 0 else 0.0)
                    error, norm = 0.0, 0.0
                if progress is not None:
                    progress(done, total, encoded.piece.job.choice.tensor.name)
        return [tensor.relative_error for tensor in output.finished]


def _tensor_report(job: Job, relative_error: float | None) -> TensorReport:
    choice = job.choice
    tensor, target = choice.tensor, choice.target
    return TensorReport(
        name=tensor.name,
        shape=tensor.shape,
        source=tensor.type.name,
        target=tensor.type.name if target is None else target.name,
        fallback=choice.wanted.name if choice.fallback and choice.wanted is not None else None,
        n_bytes=job.n_bytes,
        weighted=job.importance is not None,
        relative_error=relative_error,
    )


def _warnings(jobs: list[Job], main: Format, matrix: Imatrix | None) -> tuple[str, ...]:
    found = []
    if matrix is None and main.name in LOW_BIT and not any(job.encoder for job in jobs):
        found.append(f"{main.name} without an importance matrix loses more than it must; compute one and pass it")
    low_bit = [job for job in jobs if job.choice.target is not None and job.choice.target.name in LOW_BIT]
    blind = [job.choice.tensor.name for job in low_bit if job.importance is None and job.encoder is None]
    if matrix is not None and blind:
        found.append(f"the importance matrix says nothing about {_listed(blind)}: encoded without it")
    replaced = [job for job in jobs if job.choice.fallback]
    if replaced:
        names = _listed([job.choice.tensor.name for job in replaced])
        found.append(f"rows that do not fill whole blocks got a wider type ({_growth(replaced)} bytes more): {names}")
    return tuple(found)


def _growth(jobs: Sequence[Job]) -> int:
    """The bytes that tensors take more than they would in the type wanted."""
    wanted = sum(job.choice.tensor.n_weights * job.choice.wanted.bpw / 8 for job in jobs if job.choice.wanted)
    return sum(job.n_bytes for job in jobs) - round(wanted)


def _unmatched(recipe: Recipe, source: GGUFFile) -> list[str]:
    return [
        f"the regular expression {regex!r} is found in no tensor's name" for regex in recipe.unmatched(source.tensors)
    ]


def _listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
