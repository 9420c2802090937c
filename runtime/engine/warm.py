"""Reading a mapped model through once, so that the first answer does not wait for the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from iqrun.program import Weight

_PAGE = 4096
_PIECE = 16 << 20  # bytes between two reports


def read_through(weights: Sequence[Weight], on_progress: Callable[[int, int], object]) -> None:
    """Touches every page of the weights.

    Args:
        weights: whose data are mapped.
        on_progress: called as ``on_progress(done, total)``, in bytes; what it raises ends the reading.
    """
    total, done = sum(weight.data.size for weight in weights), 0
    on_progress(0, total)
    for weight in weights:
        data = weight.data.reshape(-1)
        for first in range(0, data.size, _PIECE):
            piece = data[first : first + _PIECE]
            piece[::_PAGE].max(initial=0)
            done += piece.size
            on_progress(done, total)
