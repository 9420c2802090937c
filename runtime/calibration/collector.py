"""What calibration counts while text runs through a model, and how it is kept on disk until the job is done.

A *part* is a GGUF file beside the output that holds the sums of one pass over the text: ``NAME.sum`` (float64,
n_matrices x n_cols), ``NAME.count`` (float64, n_matrices) and ``NAME.in_gram`` (as in `iqrun.quantizer.grams`), where
NAME is the first matrix that reads the input. It is replaced as a whole every now and then, so that a killed job loses
little; the numbers in it are those in memory, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iqrun.errors import GGUFError, IqrunError, QuantizeError
from iqrun.formats import by_name
from iqrun.gguf import GGUFFile, GGUFPlan, GGUFWriter, ValueType, keys
from iqrun.program import Program
from iqrun.quantizer import grams
from iqrun.quantizer.moments import Moments

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_GRAM_STRIPE = 512  # rows of X^T X computed at a time: only the upper triangle is needed
_F64_ID = 28


@dataclass(frozen=True, slots=True)
class Input:
    """The input of a matmul.

    Attributes:
        op: index of the operation that reads it.
        names: the matrices that it meets.
        n_cols: its width.
        n_matrices: 1, or the number of experts: each of them meets rows of its own.
    """

    op: int
    names: tuple[str, ...]
    n_cols: int
    n_matrices: int = 1

    @property
    def gram_bytes(self) -> int:
        """Memory for its second-moment matrix."""
        return 4 * grams.triangle_size(self.n_cols)


def matmul_inputs(program: Program) -> list[Input]:
    """The inputs of all matmuls of a program, in order."""
    return [
        Input(index, tuple(weight.name for weight in op.weight), op.src[0].n_cols, max(1, op.weight[0].n_expert))
        for index, op in enumerate(program.ops)
        if op.kind in ("matmul", "gated_matmul")
    ]


class Collector:
    """The sums of one pass.

    Attributes:
        chunks: chunks of text counted.
    """

    def __init__(self, diagonals: Sequence[Input], squares: Sequence[Input]) -> None:
        """Counts squares per column of `diagonals`, and second-moment matrices of `squares`."""
        self.chunks = 0
        self._moments = {i.op: Moments(np.zeros((i.n_matrices, i.n_cols)), np.zeros(i.n_matrices)) for i in diagonals}
        # The lower triangles are never touched, so they take no memory.
        self._grams = {i.op: np.zeros((i.n_cols, i.n_cols), np.float32) for i in squares}
        self._inputs = {i.op: i for i in [*diagonals, *squares]}

    @property
    def ops(self) -> list[int]:
        """The operations whose inputs are counted, ascending."""
        return sorted(self._inputs)

    def add(self, op: int, x: Floats, experts: Ints | None) -> None:
        """Counts the input of an operation, ``(n_tokens, n_cols)``; `experts` are the matrices that the rows meet.

        Raises:
            IqrunError: it holds NaN or infinity.
        """
        if not np.isfinite(x).all():
            name = self._inputs[op].names[0]
            raise IqrunError(f"the model computed NaN or infinity before {name!r}: the file's weights are damaged")
        if op in self._moments:
            self._moments[op] += _moments(x, experts, self._inputs[op].n_matrices)
        gram = self._grams.get(op)
        if gram is not None:
            for start in range(0, len(gram), _GRAM_STRIPE):
                gram[start : start + _GRAM_STRIPE, start:] += x[:, start : start + _GRAM_STRIPE].T @ x[:, start:]

    def save(self, path: Path, fingerprint: str) -> None:
        """Writes the part.

        Raises:
            GGUFError, ResourceError: it cannot be written.
        """
        plan = GGUFPlan()
        plan.set(keys.PART_FINGERPRINT, fingerprint, ValueType.STRING)
        plan.set(keys.PART_CHUNKS, self.chunks, ValueType.UINT32)
        for op, entry in self._moments.items():
            plan.add_tensor(self._inputs[op].names[0] + ".sum", (entry.sums.size,), _F64_ID)
            plan.add_tensor(self._inputs[op].names[0] + ".count", (entry.counts.size,), _F64_ID)
        for op, gram in self._grams.items():
            size = grams.triangle_size(len(gram))
            plan.add_tensor(self._inputs[op].names[0] + grams.SUFFIX, (size,), by_name("F32").id)
        with GGUFWriter(path, plan, overwrite=True) as writer:
            for entry in self._moments.values():
                writer.write(entry.sums)
                writer.write(entry.counts)
            for gram in self._grams.values():
                for row in range(len(gram)):
                    writer.write(gram[row, row:])

    def load(self, path: Path, fingerprint: str) -> None:
        """Goes on from a part.

        Raises:
            QuantizeError: it belongs to another job, or is damaged.
        """
        with _open_part(path, fingerprint) as file:
            self.chunks = file.metadata.get_uint(keys.PART_CHUNKS)
            for op in self._moments:
                name = self._inputs[op].names[0]
                self._moments[op] = read_moments(file, name)
            for op, gram in self._grams.items():
                flat = file.tensor_bytes(self._inputs[op].names[0] + grams.SUFFIX).view(np.float32)
                for row, place in grams.triangle_rows(len(gram)):
                    gram[row, row:] = flat[place]


def read_moments(file: GGUFFile, name: str) -> Moments:
    """The sums of an input in a part."""
    sums = file.tensor_bytes(name + ".sum").view(np.float64).copy()
    counts = file.tensor_bytes(name + ".count").view(np.float64).copy()
    return Moments(sums.reshape(counts.size, -1), counts)


def _moments(x: Floats, experts: Ints | None, n_matrices: int) -> Moments:
    """Of one batch."""
    if experts is None:
        return Moments(np.einsum("ij,ij->j", x, x, dtype=np.float64)[None], np.full(1, float(len(x))))
    found = Moments(np.zeros((n_matrices, x.shape[1])), np.bincount(experts, minlength=n_matrices).astype(np.float64))
    np.add.at(found.sums, experts, np.square(x, dtype=np.float64))
    return found


def _open_part(path: Path, fingerprint: str) -> GGUFFile:
    try:
        file = GGUFFile(path)
    except GGUFError as error:
        raise QuantizeError(f"what was kept cannot be read: {error}; start without resuming") from error
    if file.metadata.get_str(keys.PART_FINGERPRINT, "") == fingerprint:
        return file
    file.close()
    raise QuantizeError(
        f"{path} was kept by a job with another model, text or options; repeat that job, or start without resuming"
    )


def passes(inputs: Sequence[Input], gram_bytes: int) -> Iterator[list[Input]]:
    """Cuts the inputs into runs whose second-moment matrices fit into `gram_bytes` together (at least one each)."""
    run: list[Input] = []
    for item in inputs:
        if run and sum(i.gram_bytes for i in run) + item.gram_bytes > gram_bytes:
            yield run
            run = []
        run.append(item)
    yield run
