"""Quantizing along a text: the strongest encoder for `iqrun.quantize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from iqrun.evaluation.evaluate import text_chunks
from iqrun.formats import Effort
from iqrun.quantizer.feedback import SequentialEncoder, bytes_per_token

if TYPE_CHECKING:
    from iqrun.model import Model

DEFAULT_BYTES = 1 << 30


def calibrated_encoder(
    model: Model,
    text: str,
    *,
    n_ctx: int = 512,
    max_bytes: int = DEFAULT_BYTES,
    effort: Effort = "normal",
    n_threads: int | None = None,
    progress: Callable[[int, int, str], object] | None = None,
) -> SequentialEncoder:
    """An encoder that fits each matrix to what typical text makes of its inputs, after those before it were quantized.

    The original and the model quantized so far run through the text side by side, matrix by matrix; each code makes up
    for the rounding of the others (`iqrun.quantizer.feedback`). An importance matrix adds nothing to it, except for
    what the text does not reach.

    Args:
        model: the model to quantize, F32, F16 or BF16; it stays open until `iqrun.quantize` is done.
        text: typical text. More is better, up to what `max_bytes` allows.
        n_ctx: tokens per chunk.
        max_bytes: memory for the text's way through both models; it decides how much of the text is used.
        effort: how hard to search; give `iqrun.quantize` the same.
        n_threads: threads to compute with, by default those of the model.
        progress: called as ``progress(weights_done, weights_total, tensor_name)`` as matrices are encoded, from another
            thread. They are all encoded before `iqrun.quantize` can write the one that the model reads last.

    Returns:
        What `iqrun.quantize` takes as ``encoder``, for one run.

    Raises:
        ValueError: the text is too short.

    Example:
        >>> with iqrun.load("model-f16.gguf") as model:
        ...     encoder = iqrun.calibrated_encoder(model, text)
        ...     iqrun.quantize(model.path, "model-iq3k.gguf", "IQ3_K", encoder=encoder)
    """
    max_chunks = max(1, max_bytes // (bytes_per_token(model.program) * n_ctx))
    chunks = text_chunks(model, text, n_ctx, max_chunks, min_chunks=1)
    return SequentialEncoder(model.program, chunks, effort, n_threads or model.n_threads, progress)
