"""How much a model's predictions suffer from an error in each of its matrices, measured on a text.

One matrix after the other is quantized to few bits, the rest staying as it is, and the divergence from the untouched
model is divided by the matrix's relative squared error. Divergence is proportional to that error over the range that
quantization moves in, so one measurement per matrix tells what any type does. It takes as many runs over the text as
there are matrices: minutes for a small model. `iqrun.quantizer.sensitivity` estimates the same in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import fsum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from iqrun import formats
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.session import Session
from iqrun.errors import QuantizeError
from iqrun.evaluation.evaluate import text_chunks
from iqrun.formats import Format
from iqrun.program import Weight
from iqrun.quantizer.imatrix import Imatrix
from iqrun.quantizer.recipes import fitting
from iqrun.quantizer.rows import encode_rows, squared_error
from iqrun.scores import log_softmax

if TYPE_CHECKING:
    from iqrun.model import Model

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int, str], object]

_PROBE = "IQ2_K"  # coarse enough that its divergence stands out from rounding
_PIECE_WEIGHTS = 1 << 20


def measure_sensitivity(
    model: Model,
    text: str,
    *,
    imatrix: Imatrix | None = None,
    n_ctx: int = 256,
    max_chunks: int = 16,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Measures the sensitivity of every matrix, for `iqrun.quantize` to find a mix with.

    The untouched model's predictions are kept: ``2 * n_ctx * max_chunks * n_vocab`` bytes of memory.

    Args:
        model: the model, F32, F16 or BF16.
        text: typical text, best what the importance matrix was computed on.
        imatrix: importance matrix; it should be the one that the model will be quantized with.
        n_ctx: tokens per chunk; the second half of each is scored.
        max_chunks: chunks to run.
        progress: called as ``progress(matrices_done, matrices_in_all, tensor_name)``.

    Returns:
        By tensor name the divergence, in nats per token, for a relative squared error of 1.

    Raises:
        QuantizeError: the model is quantized already.
        ValueError: the text is too short.

    Example:
        >>> with iqrun.load("model-f16.gguf") as model:
        ...     sensitivity = measure_sensitivity(model, text)
        >>> iqrun.quantize("model-f16.gguf", "model.gguf", target_bpw=3.5, sensitivity=sensitivity)
    """
    probe = _Probe(model, text_chunks(model, text, n_ctx, max_chunks), n_ctx)
    matrices = [weight for weight in model.program.weights if weight.n_rows > 1]
    found = {}
    for done, weight in enumerate(matrices, 1):
        entry = None if imatrix is None else imatrix.entries.get(weight.name)
        data, relative_error = _coarse(model, weight, entry if entry is not None and entry.any() else None)
        if relative_error > 0:
            found[weight.name] = probe.divergence(replace(weight, data=data)) / relative_error
        if progress is not None:
            progress(done, len(matrices), weight.name)
    return found


class _Probe:
    """Compares a model of which one weight was exchanged with the untouched one."""

    def __init__(self, model: Model, chunks: list[npt.NDArray[np.int64]], n_ctx: int) -> None:
        self._model, self._chunks, self._n_ctx = model, chunks, n_ctx
        with model.session(n_ctx=n_ctx) as session:
            self._base = [_predict(session, chunk) for chunk in chunks]

    def divergence(self, weight: Weight) -> float:
        """Mean Kullback-Leibler divergence, in nats per token."""
        program = self._model.program.with_weights([weight])
        divergences = []
        with Session(NativeProgram(program), n_ctx=self._n_ctx, n_threads=self._model.n_threads) as session:
            for chunk, base in zip(self._chunks, self._base, strict=True):
                log_p, log_q = log_softmax(base), log_softmax(_predict(session, chunk))
                divergences += (np.exp(log_p) * (log_p - log_q)).sum(axis=1).tolist()
        return fsum(divergences) / len(divergences)


def _predict(session: Session, chunk: npt.NDArray[np.int64]) -> Floats:
    """Logits at the second half of a chunk, but for the last token."""
    want = np.zeros(len(chunk), np.bool_)
    want[len(chunk) // 2 : -1] = True
    session.truncate(0)
    return session.evaluate(chunk, want=want)


def _coarse(model: Model, weight: Weight, importance: Floats | None) -> tuple[npt.NDArray[np.uint8], float]:
    """A weight after a coarse quantization, stored as it was; and its relative squared error."""
    stored = formats.by_id(weight.type_id)
    if stored.block_weights > 1:
        what = f"tensor {weight.name!r} is {stored.name}: sensitivities are measured on the unquantized model"
        raise QuantizeError(f"{model.path}: {what}; give its F16, BF16 or F32 file")
    probe = fitting(formats.FORMATS[_PROBE], weight.n_cols)
    rows = weight.data.reshape(weight.n_rows, -1)
    step = max(1, _PIECE_WEIGHTS // weight.n_cols)
    pieces = [
        _coarse_rows(rows[at : at + step], stored, weight.n_cols, probe, importance) for at in range(0, len(rows), step)
    ]
    error, norm = (fsum(piece[1][index] for piece in pieces) for index in (0, 1))
    return np.concatenate([piece[0] for piece in pieces]).reshape(-1), error / norm if norm > 0 else 0.0


def _coarse_rows(
    rows: npt.NDArray[np.uint8], stored: Format, n_cols: int, probe: Format, importance: Floats | None
) -> tuple[npt.NDArray[np.uint8], tuple[float, float]]:
    weights = formats.decode(rows, stored, n_cols)
    coarse = encode_rows(weights, probe, importance, "fast")[1]
    return formats.encode(coarse, stored), squared_error(weights, coarse, importance)
