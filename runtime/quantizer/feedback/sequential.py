"""Error feedback along the program: each matrix is encoded knowing what those before it have changed.

Two models walk through the calibration text side by side, the original and the one encoded so far. At each matmul the
original sees the inputs x, the other sees y. For a matrix W with the output W x, the best stand-in on y is

    W' = W + (W (C - H) + R) H^-1,   H = sum of y^T y,   C = sum of x^T y,   R = sum of r^T y

where r, for a matmul that adds to the residual stream, is what the stream of the original is ahead of the other's: so
the branch also mends errors made before it. W' is then encoded with error feedback under H. (The idea of asymmetric
calibration is that of GPTAQ, Li et al. 2025, and of Qronos, Zhang et al. 2025.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from iqrun import formats
from iqrun.engine.lowering import NativeProgram
from iqrun.errors import UnsupportedModelError
from iqrun.formats import Effort, Format
from iqrun.program import Op, Program, Weight
from iqrun.quantizer.feedback.factors import Floats
from iqrun.quantizer.feedback.inputs import Inputs, of_both_models, of_one_model
from iqrun.quantizer.feedback.rows import Bytes, FeedbackRows, has_feedback
from iqrun.quantizer.feedback.walk import Walk, live_buffers
from iqrun.quantizer.gain import unbias
from iqrun.quantizer.recipes import Choice

Chunks = Sequence[npt.NDArray[np.integer[Any]]]
Progress = Callable[[int, int, str], object]

_BAND_WEIGHTS = 1 << 24  # weights in memory as float32: 64 MiB


def bytes_per_token(program: Program) -> int:
    """Memory that a token of calibration text takes: the states of both models."""
    widest = max(sum(buffer.n_cols for buffer in live) for live in live_buffers(program))
    return 2 * 4 * widest


class SequentialEncoder:
    """For `iqrun.quantize`: encodes all matrices of a model in the order in which it reads them.

    Bytes of matrices that nobody has asked for yet stay in memory.

    Attributes:
        chunks: the text's token ids, ``(n_tokens,)`` each.
    """

    def __init__(
        self, program: Program, chunks: Chunks, effort: Effort, n_threads: int, progress: Progress | None = None
    ) -> None:
        """Nothing is computed yet.

        Args:
            program: of the model to quantize, which stays open as long as this encodes.
            chunks: token ids of typical text, ``(n_tokens,)`` each.
            effort: how hard to search.
            n_threads: threads to compute with.
            progress: called as ``progress(weights_done, weights_total, tensor_name)`` before and after each matrix,
                from the thread that encodes it.

        Raises:
            UnsupportedModelError: the model has experts.
        """
        if any(op.kind == "route" for op in program.ops):
            raise UnsupportedModelError(
                f"{program.path}: a mixture of experts cannot be calibrated along a text; use an importance matrix"
            )
        self._program, self.chunks = program, chunks
        self._effort, self._n_threads = effort, n_threads
        self._progress, self._n_done, self._n_total = progress, 0, 0
        self._matrices = {weight.name for op in _matrix_ops(program) for weight in op.weight}
        self._targets: dict[str, Format] = {}
        self._encoded: dict[str, Bytes] = {}
        self._lock = Lock()  # the work goes on in order, whoever asks
        self._steps = self._run()

    @property
    def identity(self) -> str:
        """The method and the text."""
        digest = hashlib.sha256()
        for chunk in self.chunks:
            digest.update(np.ascontiguousarray(chunk, np.int64).tobytes())
        return f"sequential feedback {self._effort} {digest.hexdigest()}"

    def handles(self, choice: Choice) -> bool:
        """Whether it is a matrix of the program, to be encoded."""
        tensor, target = choice.tensor, choice.target
        if target is None or target is tensor.format or tensor.name not in self._matrices:
            return False
        self._targets[tensor.name] = target
        self._n_total += tensor.n_weights
        return True

    def __call__(
        self, name: str, matrix: int, first: int, weights: Floats, target: Format, importance: Floats | None
    ) -> Bytes:
        """As `iqrun.quantizer.jobs.MatrixEncoder`."""
        with self._lock:
            while name not in self._encoded:
                next(self._steps)
            data = self._encoded[name]
            if first + len(weights) == len(data):
                self._encoded[name] = np.empty(0, np.uint8)  # done, and forgotten
            return data[first : first + len(weights)]

    def _run(self) -> Iterator[None]:
        """Encodes the matrices of one operation after the other."""
        original = Walk(self._program, self.chunks, self._n_threads)
        ours = Walk(self._program, self.chunks, self._n_threads)
        untouched = changed = NativeProgram(self._program)
        for index, op in enumerate(self._program.ops):
            if op.kind == "embed":
                changed = self._with(self._encode_all(op, self._embedding_inputs(op, untouched)))
                yield
            elif op.kind in ("matmul", "gated_matmul"):
                original.advance(untouched, index)
                ours.advance(changed, index)
                inputs = of_both_models(op, original.states(), ours.states())
                changed = self._with(self._encode_all(op, inputs))  # those before it have done their work
                yield

    def _with(self, weights: Iterator[Weight]) -> NativeProgram:
        return NativeProgram(self._program.with_weights(list(weights)))

    def _encode_all(self, op: Op, inputs: Inputs | None) -> Iterator[Weight]:
        """The matrices of an operation, as the file will hold them."""
        feedback: dict[Format, FeedbackRows] = {}  # what the inputs ask for, worked out once for all matrices of a type
        for weight in op.weight:
            if weight.name in self._targets and weight.name not in self._encoded:
                target = self._targets[weight.name]
                self._report(0, weight)
                if inputs is not None and has_feedback(target) and target not in feedback:
                    feedback[target] = FeedbackRows(inputs.h, target, self._effort, self._n_threads)
                data = self._encode(weight, target, inputs, feedback.get(target))
                self._encoded[weight.name] = data
                self._report(weight.n_rows * weight.n_cols, weight)
                yield replace(weight, type_id=target.id, type_name=target.name, data=data.ravel())

    def _report(self, n_more: int, weight: Weight) -> None:
        self._n_done += n_more
        if self._progress is not None:
            self._progress(self._n_done, self._n_total, weight.name)

    def _encode(self, weight: Weight, target: Format, inputs: Inputs | None, feedback: FeedbackRows | None) -> Bytes:
        out = np.empty((weight.n_rows, target.row_bytes(weight.n_cols)), np.uint8)
        step = max(1, _BAND_WEIGHTS // weight.n_cols)
        for first in range(0, weight.n_rows, step):
            last = min(first + step, weight.n_rows)
            rows = _read(weight, first, last)
            if inputs is not None:
                rows = inputs.stand_in(rows, first)
            out[first:last] = self._plain(rows, target, inputs) if feedback is None else feedback.encode(rows)
        return out

    def _plain(self, rows: Floats, target: Format, inputs: Inputs | None) -> Bytes:
        importance = None if inputs is None else inputs.importance
        data = formats.encode(rows, target, importance, self._effort, self._n_threads)
        unbias(data, target, rows, formats.decode(data, target, rows.shape[1], self._n_threads), importance)
        return data

    def _embedding_inputs(self, op: Op, untouched: NativeProgram) -> Inputs | None:
        """Those of a token embedding that is also the output matrix; None: its rows are looked up, no more."""
        name = op.weight[0].name
        for index, other in enumerate(self._program.ops):
            if other.kind == "matmul" and other.weight[0].name == name:
                walk = Walk(self._program, self.chunks, self._n_threads)
                walk.advance(untouched, index)
                return of_one_model(other, walk.states())
        return None


def _read(weight: Weight, first: int, last: int) -> Floats:
    rows = weight.data.reshape(weight.n_rows, -1)[first:last]
    return formats.decode(rows, weight.type_id, weight.n_cols)


def _matrix_ops(program: Program) -> list[Op]:
    return [op for op in program.ops if op.kind in ("embed", "matmul", "gated_matmul")]
