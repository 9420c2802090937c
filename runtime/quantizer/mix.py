"""A mix for a given size: the type of every matrix, so that the file fits and the model suffers least."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from iqrun.errors import QuantizeError
from iqrun.formats import Format, by_name
from iqrun.gguf import GGUFFile, TensorInfo
from iqrun.quantizer.jobs import Job
from iqrun.quantizer.recipes import Choice, fitting, writable
from iqrun.quantizer.rows import encode_rows, read_rows, squared_error
from iqrun.quantizer.solver import solve

# What a mix is made of unless the user says otherwise: every IQ*_K type, and one that is as good as lossless.
CANDIDATES = (
    *("IQ2_KS", "IQ2_K", "IQ2_KL", "IQ3_KS", "IQ3_K", "IQ4_KSS", "IQ4_KS", "IQ4_K", "IQ5_KS", "IQ5_K", "IQ6_K"),
    "Q8_0",
)

Loss = Callable[[Sequence[Job]], Sequence[float]]
"""The loss of one tensor under each of several types, in a unit that is the same for all tensors."""

_MIN_SAMPLE, _MAX_SAMPLE = 1 << 15, 1 << 20  # weights of a tensor that are encoded on trial
_ALL_SAMPLES = 1 << 23  # and of all tensors


class SampledLoss:
    """The relative squared error of encoded rows, times the tensor's sensitivity.

    Some rows of each matrix, evenly spread, are really encoded; of small models nearly all.
    """

    def __init__(self, source: GGUFFile, sensitivities: Mapping[str, float]) -> None:
        """`sensitivities`: the loss for a relative squared error of 1, by tensor name; of others it is taken as 1."""
        self._source = source
        self._sensitivities = sensitivities
        self._n_weights = int(np.clip(_ALL_SAMPLES // max(1, len(source.tensors)), _MIN_SAMPLE, _MAX_SAMPLE))

    def __call__(self, jobs: Sequence[Job]) -> list[float]:
        """The losses of one tensor under several types."""
        tensor = jobs[0].choice.tensor
        sensitivity = self._sensitivities.get(tensor.name, 1.0)
        sums = np.zeros((len(jobs), 2))
        n_matrices = max(job.n_matrices for job in jobs)
        for matrix in range(n_matrices):
            rows = self._rows(tensor, matrix, n_matrices)
            sums += [_sums(rows, job, matrix) for job in jobs]
        self._source.release_rows(tensor.name, 0, tensor.n_rows)
        return [sensitivity * error / norm if norm > 0 else 0.0 for error, norm in sums.tolist()]

    def _rows(self, tensor: TensorInfo, matrix: int, n_matrices: int) -> npt.NDArray[np.float32]:
        rows_each = tensor.n_rows // n_matrices
        count = min(rows_each, max(1, self._n_weights // n_matrices // tensor.n_cols))
        picked = matrix * rows_each + np.unique(np.linspace(0, rows_each - 1, count).astype(np.int64))
        return read_rows(self._source, tensor, picked)


def _sums(rows: npt.NDArray[np.float32], job: Job, matrix: int) -> tuple[float, float]:
    target = job.choice.target
    assert target is not None
    importance = None if job.importance is None else job.importance[matrix]
    return squared_error(rows, encode_rows(rows, target, importance, "fast")[1], importance)


def options(choice: Choice, candidates: Sequence[Format]) -> list[Choice]:
    """What a tensor may become: its choice if that is settled, else each candidate that fits its rows."""
    if not choice.free:
        return [choice]
    found = {fitting(candidate, choice.tensor.n_cols): candidate for candidate in candidates}
    return [replace(choice, target=target, wanted=wanted) for target, wanted in found.items()]


@dataclass(frozen=True)
class Target:
    """A size to reach: bits per weight of all tensors together, or bytes of the finished files; one of them is None.

    Attributes:
        bpw: bits per weight, as `QuantizeReport.bpw` counts them.
        n_bytes: size of the files, headers and all.
        types: the types to mix.
    """

    bpw: float | None
    n_bytes: int | None
    types: tuple[Format, ...]

    @staticmethod
    def of(bpw: float | None, n_bytes: int | None, types: Sequence[str] | None) -> Target | None:
        """A target from what the user said; None if that is nothing.

        Raises:
            FormatError: a type is unknown.
            ValueError: the values do not go together.
        """
        if bpw is None and n_bytes is None:
            return None
        if bpw is not None and n_bytes is not None:
            raise ValueError("give a size in bits per weight or in bytes, not both")
        if not 0 < (bpw or n_bytes or 0) < float("inf"):
            raise ValueError(f"the size must be above 0, not {bpw if n_bytes is None else n_bytes}")
        if types is not None and not types:
            raise ValueError("the mix needs at least one type to include")
        return Target(bpw, n_bytes, tuple(writable(by_name(name)) for name in types or CANDIDATES))

    def __str__(self) -> str:
        size = f"{self.bpw:g} bits per weight" if self.bpw is not None else f"{self.n_bytes} bytes"
        return f"{size} of {', '.join(row.name for row in self.types)}"


def solve_mix(
    alternatives: Sequence[Sequence[Job]],
    target: Target,
    loss: Loss,
    file_bytes: Callable[[Sequence[Job]], int],
    n_threads: int,
    rated: Callable[[str], object],
) -> list[Job]:
    """The jobs of the least total loss that do not exceed a size.

    Args:
        alternatives: per tensor the jobs to choose from.
        target: the size.
        loss: rates the alternatives of a tensor.
        file_bytes: the size of the files, given a job for each tensor.
        n_threads: how many tensors are rated at a time.
        rated: called with each tensor's name; what it raises stops the search.

    Raises:
        QuantizeError: even the smallest mix is too large; the sentence names the range.
    """
    n_bytes = [np.array([job.n_bytes for job in jobs], np.int64) for jobs in alternatives]
    n_weights = sum(jobs[0].choice.tensor.n_weights for jobs in alternatives)

    def size(picked: Sequence[int]) -> int:
        """What the target speaks of."""
        if target.bpw is None:
            return file_bytes([jobs[index] for jobs, index in zip(alternatives, picked, strict=True)])
        return sum(int(row[index]) for row, index in zip(n_bytes, picked, strict=True))

    limit = target.n_bytes if target.n_bytes is not None else int((target.bpw or 0) * n_weights / 8)
    ends = [size([int(reduce(row)) for row in n_bytes]) for reduce in (np.argmin, np.argmax)]
    if ends[0] > limit:
        raise QuantizeError(_out_of_reach(target, ends, n_weights))
    losses = _rate(alternatives, loss, n_threads, rated)
    room = limit
    while True:  # headers and padding make a file larger than its tensors, shard by shard
        picked = solve(n_bytes, losses, room)
        excess = size(picked) - limit
        if excess <= 0:
            return [jobs[index] for jobs, index in zip(alternatives, picked, strict=True)]
        room = max(room - excess, sum(int(row.min()) for row in n_bytes))


def _rate(
    alternatives: Sequence[Sequence[Job]], loss: Loss, n_threads: int, rated: Callable[[str], object]
) -> list[npt.NDArray[np.float64]]:
    found = []
    with ThreadPoolExecutor(n_threads, thread_name_prefix="iqrun-mix") as pool:
        try:
            rows = pool.map(lambda jobs: loss(jobs) if len(jobs) > 1 else [0.0], alternatives)
            for jobs, row in zip(alternatives, rows, strict=True):
                found.append(np.array(row, np.float64))
                rated(jobs[0].choice.tensor.name)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return found


def _out_of_reach(target: Target, ends: Sequence[int], n_weights: int) -> str:
    if target.bpw is None:
        least, most = (f"{end} bytes" for end in ends)
    else:
        least, most = (f"{8 * end / n_weights:.3f}" for end in ends)
    return f"{target} cannot be reached: the mixes go from {least} to {most}; allow more, or include narrower types"
