"""Calibration: how strongly typical text drives each column of each matrix, written as an importance matrix.

The text is cut into chunks as for perplexity. For every chunk the program runs from matmul to matmul, and the float32
input of each is summed up. The procedure and the file are those of llama.cpp's ``imatrix`` tool; here the output matrix
is always included.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from os import PathLike, fsdecode
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from iqrun.calibration.collector import Collector, Input, matmul_inputs, passes, read_moments
from iqrun.errors import GGUFError, QuantizeError
from iqrun.evaluation.evaluate import text_chunks
from iqrun.gguf import GGUFFile
from iqrun.quantizer import checks
from iqrun.quantizer.grams import SUFFIX, GramFile
from iqrun.quantizer.imatrix import Imatrix, read_imatrix
from iqrun.quantizer.imatrix_writer import ImatrixContent, is_legacy_name, write_imatrix
from iqrun.quantizer.moments import Moments
from iqrun.whole_file import remove_unfinished

if TYPE_CHECKING:
    from iqrun.engine.session import Session
    from iqrun.model import Model

StrPath = str | PathLike[str]
Progress = Callable[[int, int], object]
Chunks = Sequence[npt.NDArray[np.int64]]

DEFAULT_GRAM_BYTES = 2 << 30
_SAVE_SECONDS = 30.0


def calibrate(
    model: Model,
    text: str,
    out: StrPath,
    *,
    full: bool = False,
    n_ctx: int = 512,
    max_chunks: int | None = None,
    dataset: str = "",
    merge: Sequence[StrPath] = (),
    resume: bool = False,
    overwrite: bool = False,
    gram_bytes: int = DEFAULT_GRAM_BYTES,
    progress: Progress | None = None,
) -> Imatrix:
    """Runs a text through a model and writes what its matrices saw as an importance matrix.

    While it runs, the sums are kept in files ``OUT.part0`` ...; they are removed at the end.

    Args:
        model: the model, best unquantized.
        text: typical text, at least `n_ctx` tokens.
        out: the file to write: ``.dat`` for the older format, anything else GGUF.
        full: also the second-moment matrix ``X^T X`` of every input but those of experts (GGUF only). It is summed in
            float32.
        n_ctx: tokens per chunk.
        max_chunks: stop after so many chunks.
        dataset: name of the text, for the file.
        merge: importance matrices whose sums are added; a .dat is taken to have `n_ctx` tokens per chunk.
        resume: go on where a job with the same model, text and options was stopped.
        overwrite: replace `out` if it exists.
        gram_bytes: memory for second-moment matrices; if they need more, the text is run several times.
        progress: called with (chunks done, chunks in all), all passes counted.

    Returns:
        The matrix, read back from the file.

    Raises:
        IqrunError: the model computed NaN.
        QuantizeError: `out` cannot be written, a file to merge does not fit, or there is nothing to resume from.
        ResourceError: memory or disk is too small.
        ValueError: the text is too short, or an argument is out of range.

    Example:
        >>> with iqrun.load("model-f16.gguf") as model:
        ...     iqrun.calibrate(model, text, "model.imatrix.gguf", n_ctx=512)
        >>> iqrun.quantize("model-f16.gguf", "model-iq3k.gguf", "IQ3_K", imatrix="model.imatrix.gguf")
    """
    path = Path(fsdecode(out))
    _check_target(path, full, overwrite, [model.path, *(fsdecode(name) for name in merge)])
    chunks = text_chunks(model, text, n_ctx, max_chunks, min_chunks=1)
    inputs = matmul_inputs(model.program)
    squares = [item for item in inputs if item.n_matrices == 1]  # one per expert would be too large
    plan = list(passes(squares, gram_bytes)) if full else [[]]
    others = [_Other(name, n_ctx, full) for name in merge]
    job = _Job(model, chunks, n_ctx, inputs, plan, path, progress)
    job.run(resume)
    with ExitStack() as stack:
        content = job.content(dataset, [stack.enter_context(GGUFFile(part)) for part in job.parts])
        everything = _merged([content, *(other.open(stack) for other in others)])
        write_imatrix(path, everything, overwrite=overwrite)
    job.clean_up()
    return read_imatrix(path)


def merge_imatrices(
    sources: Sequence[StrPath], out: StrPath, *, full: bool = False, n_ctx: int = 512, overwrite: bool = False
) -> Imatrix:
    """Writes the sum of importance matrices; the arguments are those of `calibrate`.

    Raises:
        QuantizeError: `out` cannot be written, or the files do not fit together.
        ResourceError: the disk is too small.
        ValueError: there is nothing to merge.
    """
    if not sources:
        raise ValueError("there is nothing to merge: name at least one importance matrix")
    path = Path(fsdecode(out))
    _check_target(path, full, overwrite, [fsdecode(name) for name in sources])
    with ExitStack() as stack:
        contents = [_Other(name, n_ctx, full).open(stack) for name in sources]
        write_imatrix(path, _merged(contents), overwrite=overwrite)
    return read_imatrix(path)


def moments_of(matrix: Imatrix, n_ctx: int = 512) -> dict[str, Moments]:
    """The sums that an importance matrix was made of; a .dat is taken to have `n_ctx` tokens per chunk."""
    found = {}
    for name, values in matrix.entries.items():
        counts = matrix.counts[name].astype(np.float64) * (n_ctx if matrix.is_legacy else 1)
        means = values.astype(np.float64).reshape(counts.size, -1)
        found[name] = Moments(means * counts[:, None], counts)
    return found


class _Job:
    """The passes over the text and the parts that they leave."""

    def __init__(
        self,
        model: Model,
        chunks: Chunks,
        n_ctx: int,
        inputs: Sequence[Input],
        plan: Sequence[Sequence[Input]],
        out: Path,
        progress: Progress | None,
    ) -> None:
        self.parts = [out.with_name(f"{out.name}.part{index}") for index in range(len(plan))]
        self._model, self._chunks, self._n_ctx = model, chunks, n_ctx
        self._inputs, self._plan, self._progress = inputs, plan, progress
        self._fingerprint = _fingerprint(model, chunks, [[item.op for item in run] for run in plan])

    def run(self, resume: bool) -> None:
        """Makes every part complete."""
        if not resume:
            self.clean_up()
        with self._model.session(n_ctx=self._n_ctx) as session:
            for index in range(len(self.parts)):
                self._pass(session, index)

    def _pass(self, session: Session, index: int) -> None:
        part, n_chunks = self.parts[index], len(self._chunks)
        collector = Collector(self._inputs if index == 0 else [], self._plan[index])
        if part.exists():
            collector.load(part, self._fingerprint)
        interval = _Interval()
        while collector.chunks < n_chunks:
            session.truncate(0)
            session.trace(self._chunks[collector.chunks], collector.ops, collector.add)
            collector.chunks += 1
            if self._progress is not None:
                self._progress(index * n_chunks + collector.chunks, len(self.parts) * n_chunks)
            if collector.chunks == n_chunks or interval.is_over():
                collector.save(part, self._fingerprint)
                interval.start()

    def clean_up(self) -> None:
        """Removes the parts, and what a killed job left while it wrote one."""
        for part in self.parts:
            part.unlink(missing_ok=True)
            remove_unfinished(part)

    def content(self, dataset: str, parts: Sequence[GGUFFile]) -> ImatrixContent:
        """What the parts say."""
        moments, triangles, sources = {}, {}, {}
        for item in self._inputs:
            entry = read_moments(parts[0], item.names[0])
            moments.update(dict.fromkeys(item.names, entry))
        for file, run in zip(parts, self._plan, strict=True):
            for item in run:
                triangles[item.names[0]] = [file.tensor_bytes(item.names[0] + SUFFIX).view(np.float32)]
                sources.update(dict.fromkeys(item.names, item.names[0]))
        datasets = [dataset] if dataset else []
        return ImatrixContent(moments, datasets, len(self._chunks), self._n_ctx, triangles, sources)


class _Interval:
    """Time to save again: rarely enough that saving takes a tenth of the time at most."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def is_over(self) -> bool:
        self._last = time.monotonic()
        return self._last - self._began >= _SAVE_SECONDS

    def start(self) -> None:
        now = time.monotonic()
        self._began = now + max(0.0, 10 * (now - self._last) - _SAVE_SECONDS)


class _Other:
    """An importance matrix to add, checked before the long work."""

    def __init__(self, path: StrPath, n_ctx: int, full: bool) -> None:
        self._matrix = read_imatrix(path)
        self._n_ctx, self._full = n_ctx, full
        if full:
            with ExitStack() as stack:
                self._grams(stack)

    def open(self, stack: ExitStack) -> ImatrixContent:
        """Its content; views of the file are valid as long as `stack` is open."""
        triangles, sources = {}, {}
        if self._full:
            grams = self._grams(stack)
            sources = dict(grams.sources)
            triangles = {source: [grams.triangle(name)] for name, source in sources.items() if name == source}
        moments = moments_of(self._matrix, self._n_ctx)
        return ImatrixContent(moments, self._matrix.datasets, self._matrix.n_chunks, self._n_ctx, triangles, sources)

    def _grams(self, stack: ExitStack) -> GramFile:
        try:
            grams = stack.enter_context(GramFile(self._matrix.path))
        except GGUFError as error:
            raise self._without_grams() from error
        if not grams.sources:
            raise self._without_grams()
        return grams

    def _without_grams(self) -> QuantizeError:
        return QuantizeError(
            f"{self._matrix.path} has no second-moment matrices; merge it without --full (full=False), "
            "or compute it again with them"
        )


def _merged(contents: Sequence[ImatrixContent]) -> ImatrixContent:
    """The sums over several files."""
    first = contents[0]
    moments: dict[str, Moments] = {}
    for content in contents:
        for name, entry in content.moments.items():
            moments[name] = entry if name not in moments else _sum(name, moments[name], entry)
    triangles = {name: [_triangle(content, name, parts) for content in contents] for name, parts in _squares(first)}
    return ImatrixContent(
        moments,
        [name for content in contents for name in content.datasets],
        sum(content.n_chunks for content in contents),
        first.chunk_size,
        triangles,
        first.gram_sources,
    )


def _squares(content: ImatrixContent) -> list[tuple[str, Sequence[npt.NDArray[np.float32]]]]:
    return list(content.triangles.items())


def _triangle(content: ImatrixContent, name: str, like: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """A file's own triangle of a tensor."""
    source = content.gram_sources.get(name, "")
    found = content.triangles.get(source)
    if found is None or found[0].size != like[0].size:
        raise QuantizeError(f"the second-moment matrices of {name!r} do not fit together: they are of different models")
    return found[0]


def _sum(name: str, a: Moments, b: Moments) -> Moments:
    if a.sums.shape != b.sums.shape:
        sizes = f"{a.sums.size} and {b.sums.size}"
        raise QuantizeError(f"the entries of {name!r} have {sizes} values: the importance matrices are of other models")
    return a + b


def _check_target(path: Path, full: bool, overwrite: bool, sources: Sequence[str]) -> None:
    if full and is_legacy_name(path):
        raise ValueError(f"{path}: a .dat file cannot hold second-moment matrices; write a .gguf file")
    checks.not_the_same_file([path], sources)
    checks.target(path, 0, overwrite)


def _fingerprint(model: Model, chunks: Chunks, plan: Sequence[Sequence[int]]) -> str:
    """What the sums depend on: tokens, model (its tensors' first bytes) and which matrices are summed when."""
    digest = hashlib.sha256(repr((plan, [len(chunk) for chunk in chunks])).encode())
    for chunk in chunks:
        digest.update(chunk.tobytes())
    for weight in model.program.weights:
        digest.update(f"{weight} ".encode("utf-8", "surrogateescape"))
        digest.update(weight.data[:4096].tobytes())
    return digest.hexdigest()
