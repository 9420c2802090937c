"""From choices to jobs and headers: everything that is settled before the first tensor is encoded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np

from iqrun.formats import FORMATS, Format
from iqrun.gguf import GGUFFile, GGUFPlan, ValueType, keys
from iqrun.gguf.hashes import UNKNOWN, set_hashes
from iqrun.quantizer.imatrix import Imatrix
from iqrun.quantizer.jobs import Floats, Job, MatrixEncoder
from iqrun.quantizer.mix import SampledLoss, Target, options, solve_mix
from iqrun.quantizer.recipes import OUTPUT, TOKEN_EMBEDDING, Choice
from iqrun.quantizer.sensitivity import sensitivities
from iqrun.quantizer.shards import split

_QUANTIZATION_VERSION = 2  # of the block formats, as the field counts
_SCALING = "activation-aware"
_STALE_KEYS = re.compile(r"split\.|quantize\.|iqrun\.")  # they describe the old file


class Planner:
    """Plans the quantization of one model."""

    def __init__(
        self,
        source: GGUFFile,
        matrix: Imatrix | None,
        encoder: MatrixEncoder | None,
        *,
        hashes: bool,
        max_shard_bytes: int | None,
        scaled: bool = False,
    ) -> None:
        """The arguments are those of `iqrun.quantizer.quantize`, read and checked."""
        self._source, self._matrix, self._encoder = source, matrix, encoder
        self._hashes, self._max_shard_bytes, self._scaled = hashes, max_shard_bytes, scaled

    def job(self, choice: Choice) -> Job:
        """How a tensor is converted."""
        is_encoded = choice.target is not None and choice.target is not choice.tensor.format
        return Job(choice, self._importance(choice) if is_encoded else None)

    def with_encoder(self, job: Job) -> Job:
        """The job as it is done in the end: by the matrix encoder, if that handles it."""
        is_encoded = job.choice.target is not None and job.choice.target is not job.choice.tensor.format
        if self._encoder is None or not is_encoded or not self._encoder.handles(job.choice):
            return job
        return replace(job, encoder=self._encoder)

    def mix(
        self,
        choices: Sequence[Choice],
        target: Target,
        sensitivity: Mapping[str, float] | None,
        n_threads: int,
        rated: Callable[[str], object],
    ) -> list[Job]:
        """The jobs of the best mix for a size; `rated` is called with the name of each tensor that was looked at.

        Raises:
            QuantizeError: no mix is as small as that, or a weight is not finite.
        """
        alternatives = [[self.job(option) for option in options(choice, target.types)] for choice in choices]
        loss = SampledLoss(self._source, {**sensitivities(self._source, self._matrix), **(sensitivity or {})})

        def file_bytes(jobs: Sequence[Job]) -> int:
            return self.file_bytes(jobs, str(target))

        return solve_mix(alternatives, target, loss, file_bytes, n_threads, rated)

    def file_bytes(self, jobs: Sequence[Job], label: str) -> int:
        """The size of the files."""
        return sum(plan.file_bytes for plan in self.plans(jobs, FORMATS["F16"], label))

    def plans(self, jobs: Sequence[Job], main: Format, label: str) -> list[GGUFPlan]:
        """The headers: the old metadata with what has changed, and the tensors in the same order.

        `main` is the type that the file goes by; `label` says how the types were chosen, if not by its usual mix.
        """
        plan = GGUFPlan(alignment=self._source.alignment)
        for key in self._source.metadata:
            if not _STALE_KEYS.match(key):
                plan.copy(self._source.metadata, key)
        if main.file_type >= 0:
            plan.set(keys.FILE_TYPE, main.file_type, ValueType.UINT32)
        else:
            plan.remove(keys.FILE_TYPE)
        plan.set(keys.QUANTIZATION_VERSION, _QUANTIZATION_VERSION, ValueType.UINT32)
        plan.set(keys.IQRUN_VERSION, version(), ValueType.STRING)
        if label:
            plan.set(keys.IQRUN_RECIPE, label, ValueType.STRING)
        if self._scaled:
            plan.set(keys.IQRUN_SCALING, _SCALING, ValueType.STRING)
        if self._matrix is not None:
            _add_matrix(plan, self._matrix)
        if self._hashes:
            names = list(self._source.tensors)
            set_hashes(plan, names, [UNKNOWN] * len(names))
        for job in jobs:
            tensor, target = job.choice.tensor, job.choice.target
            plan.add_tensor(tensor.name, tensor.shape, tensor.type_id if target is None else target.id)
        return split(plan, self._max_shard_bytes)

    def _importance(self, choice: Choice) -> Floats | None:
        """The importance of a tensor's columns, scaled to mean 1; None if nothing is known or it is of no use."""
        assert choice.target is not None
        if self._matrix is None or choice.target.block_weights == 1:
            return None
        values = self._matrix.of(choice.tensor)
        if values is None and choice.tensor.name == TOKEN_EMBEDDING and OUTPUT not in self._source.tensors:
            values = self._matrix.of(choice.tensor, OUTPUT)
        if values is None or not values.any():
            return None
        scale = values.mean(axis=1, keepdims=True, dtype=np.float64)
        return np.where(scale > 0, values / np.where(scale > 0, scale, 1), 1).astype(np.float32)


def version() -> str:
    """Of iqrun."""
    from importlib.metadata import version as installed

    return installed("iqrun")


def _add_matrix(plan: GGUFPlan, matrix: Imatrix) -> None:
    """Names only: the folders of whoever made the file are nobody's business."""
    plan.set(keys.QUANTIZE_IMATRIX_FILE, Path(matrix.path).name, ValueType.STRING)
    if matrix.dataset:
        plan.set(keys.QUANTIZE_IMATRIX_DATASET, PurePath(matrix.dataset).name, ValueType.STRING)
    plan.set(keys.QUANTIZE_IMATRIX_N_ENTRIES, len(matrix.entries), ValueType.UINT32)
    if matrix.n_chunks:
        plan.set(keys.QUANTIZE_IMATRIX_N_CHUNKS, matrix.n_chunks, ValueType.UINT32)
