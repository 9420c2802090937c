"""Predictions that ``llama-perplexity --kl-divergence-base FILE`` saved: the base of a divergence without its model.

The file (little endian)::

    "_logits_"   u32 n_ctx   i32 n_vocab   i32 n_chunks   i32 tokens[n_chunks][n_ctx]
    per chunk and scored place:   f32 scale   f32 least   u16 codes[n_vocab, made even]

and ``scale * code + least`` is a log-probability; those below e^-16 of the best are raised to it.
"""

from __future__ import annotations

from os import PathLike, fsdecode
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iqrun.errors import IqrunError

Floats = npt.NDArray[np.float32]

_MAGIC = b"_logits_"
_HEADER_BYTES = len(_MAGIC) + 12


class SavedLogits:
    """Saved predictions, mapped: rows are decoded when they are asked for.

    Attributes:
        n_ctx: tokens per chunk.
        n_vocab: logits per place.
        n_chunks: chunks saved.
        tokens: int32 ``(n_chunks, n_ctx)``; a BOS that took the place of a chunk's first token is not shown.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """Opens and checks the file.

        Raises:
            IqrunError: it is not such a file, or cut.
            OSError: it cannot be read.
        """
        self.path = fsdecode(path)
        if Path(self.path).stat().st_size < _HEADER_BYTES or not is_saved_logits(path):
            raise IqrunError(f"{self.path}: not a file of saved logits")
        self._data = np.memmap(self.path, np.uint8, "r")
        numbers = self._data[len(_MAGIC) : _HEADER_BYTES].view(np.int32)
        self.n_ctx, self.n_vocab, self.n_chunks = (int(value) for value in numbers)
        if not (4 <= self.n_ctx <= 1 << 24 and 1 <= self.n_vocab <= 1 << 24 and 1 <= self.n_chunks <= 1 << 24):
            raise IqrunError(f"{self.path}: damaged: {self.n_chunks} chunks of {self.n_ctx} tokens")
        self._n_places = self.n_ctx - 1 - self.n_ctx // 2
        self._row = 8 + 2 * (self.n_vocab + self.n_vocab % 2)
        self._start = _HEADER_BYTES + 4 * self.n_ctx * self.n_chunks
        if len(self._data) < self._start + self.n_chunks * self._n_places * self._row:
            raise IqrunError(f"{self.path}: cut short: save the logits again")
        flat = self._data[_HEADER_BYTES : self._start].view(np.int32)
        self.tokens = flat.reshape(self.n_chunks, self.n_ctx)

    def check_text(self, chunks: list[npt.NDArray[np.int64]], n_vocab: int) -> None:
        """Checks that the predictions are for these chunks.

        Raises:
            ValueError: they are for another text, chunk length or vocabulary.
        """
        if n_vocab != self.n_vocab:
            raise ValueError(f"{self.path} has logits of {self.n_vocab} tokens, but the model has {n_vocab}")
        if len(chunks[0]) != self.n_ctx:
            raise ValueError(f"{self.path} was saved with chunks of {self.n_ctx} tokens, not {len(chunks[0])}")
        same = [np.array_equal(a[1:], b[1:]) for a, b in zip(chunks, self.tokens, strict=False)]
        if not all(same) or len(chunks) > self.n_chunks:
            raise ValueError(f"{self.path} was saved for another text, or for fewer chunks of it")

    def rows(self, index: int, first: int, end: int) -> Floats:
        """Log-probabilities at some scored places of a chunk.

        Args:
            index: the chunk.
            first: the first place, counted from 0 in each chunk.
            end: the place behind the last.

        Returns:
            float32 ``(end - first, n_vocab)``.
        """
        start = self._start + (index * self._n_places + first) * self._row
        rows = self._data[start : start + (end - first) * self._row].reshape(end - first, self._row)
        scale = rows[:, :4].copy().view(np.float32)
        least = rows[:, 4:8].copy().view(np.float32)
        codes = rows[:, 8:].copy().view(np.uint16)[:, : self.n_vocab]
        values: Floats = scale * codes.astype(np.float32) + least
        return values


def is_saved_logits(path: str | PathLike[str]) -> bool:
    """Whether a file begins as one of saved logits does."""
    with Path(path).open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
