"""Takes the shrinkage out of encoded rows.

The encoding with the least squared error is always a little too small: of weights x and their reconstruction y,
<x, y> = <y, y> < <x, x>, the more so the fewer bits there are (6 % at 2 bits). A matrix whose error is random does
little harm; one that is too weak as a whole changes what the layers after it hear. So each row's scale is raised until
<x, y> = <x, x>, both weighted by importance. The squared error grows by that of the gain, a few percent; the model's
divergence falls by up to a fifth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from iqrun.formats import Format

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_BLOCK_SCALE_TYPES = frozenset({"IQ2_K", "IQ3_K", "IQ4_K", "IQ5_K", "IQ6_K"})  # fp16 d is the first field of a block
_MAX_GAIN = 1.25  # beyond it something else is wrong with the row


def unbias(data: Bytes, target: Format, weights: Floats, decoded: Floats, importance: Floats | None) -> bool:
    """Raises the scales of encoded rows, in place.

    Args:
        data: uint8 (rows, row_bytes), C-contiguous.
        target: its type.
        weights: float32 (rows, cols), what was encoded.
        decoded: float32 (rows, cols), what `data` decodes to.
        importance: float32 (cols,), or None.

    Returns:
        Whether the rows were changed; False for types without one scale per row or superblock.
    """
    scales = _scales(data, target)
    if scales is None:
        return False
    gain = _row_gain(weights, decoded, importance)
    scaled = scales.astype(np.float64) * gain[:, None]
    limit = np.finfo(scales.dtype).max
    scales[...] = np.where(np.abs(scaled) <= limit, scaled, scales)
    return True


def _scales(data: Bytes, target: Format) -> npt.NDArray[np.floating] | None:
    """A writable view of the scales, (rows, scales per row)."""
    if target.row_meta_bytes:
        kind = np.dtype("<f2" if target.row_meta_bytes == 2 else "<f4")
        return _field(data, kind, 1, 0, target.row_meta_bytes)
    if target.name in _BLOCK_SCALE_TYPES:
        return _field(data, np.dtype("<f2"), data.shape[1] // target.block_bytes, target.block_bytes, 2)
    return None


def _field(data: Bytes, kind: np.dtype[np.floating], count: int, stride: int, size: int) -> npt.NDArray[np.floating]:
    view: npt.NDArray[np.floating] = np.ndarray(
        (len(data), count), kind, buffer=data, offset=0, strides=(data.strides[0], max(stride, size))
    )
    return view


def _row_gain(weights: Floats, decoded: Floats, importance: Floats | None) -> npt.NDArray[np.float64]:
    """<x, x> / <x, y> of each row; 1 where that says nothing."""
    weighted = weights.astype(np.float64) if importance is None else weights * importance.astype(np.float64)
    energy = np.einsum("ij,ij->i", weighted, weights)
    overlap = np.einsum("ij,ij->i", weighted, decoded)
    gain = np.divide(energy, overlap, out=np.ones_like(energy), where=overlap > 0)
    return np.where((gain >= 1 / _MAX_GAIN) & (gain <= _MAX_GAIN), gain, 1)
