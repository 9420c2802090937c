"""Writes importance matrices: llama.cpp's GGUF layout, or the older .dat, as `iqrun.quantizer.imatrix` reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iqrun.errors import QuantizeError
from iqrun.formats import by_name
from iqrun.gguf import GGUFPlan, GGUFWriter, ValueType, keys
from iqrun.gguf.part_file import disk_error
from iqrun.quantizer import checks, grams
from iqrun.quantizer.imatrix import COUNTS, SUMS
from iqrun.quantizer.moments import Moments
from iqrun.whole_file import write_whole

Floats = npt.NDArray[np.float32]

_GRAM_PIECE = 1 << 20  # values of a triangle added and written at a time


@dataclass(frozen=True)
class ImatrixContent:
    """What an importance matrix file says.

    Attributes:
        moments: per tensor.
        datasets: names of the texts.
        n_chunks: chunks of text.
        chunk_size: tokens per chunk.
        triangles: per stored second-moment matrix the triangles whose sum it is (see `iqrun.quantizer.grams`).
        gram_sources: per tensor the name of its second-moment matrix.
    """

    moments: Mapping[str, Moments]
    datasets: Sequence[str]
    n_chunks: int
    chunk_size: int
    triangles: Mapping[str, Sequence[Floats]] = field(default_factory=dict)
    gram_sources: Mapping[str, str] = field(default_factory=dict)


def is_legacy_name(path: Path) -> bool:
    """Whether a file of this name is written as .dat."""
    return path.suffix == ".dat"


def write_imatrix(path: Path, content: ImatrixContent, *, overwrite: bool = False) -> None:
    """Writes the file that its name asks for: ``.dat`` is the older format, anything else GGUF.

    Raises:
        GGUFError, QuantizeError: it cannot be written.
        ResourceError: the disk is full.
    """
    if is_legacy_name(path):
        data = encode_dat(path, content)
        checks.target(path, len(data), overwrite)
        try:
            write_whole(path, data)
        except OSError as error:
            raise disk_error(error, path, len(data), "nothing was left behind") from error
        return
    plan = _plan(content)
    checks.target(path, plan.file_bytes, overwrite)
    with GGUFWriter(path, plan, overwrite=overwrite) as writer:
        for name, entry in content.moments.items():
            writer.write(_stored(path, name, entry.sums))
            writer.write(_stored(path, name, entry.counts))
        for parts in content.triangles.values():
            for piece in _added(parts):
                writer.write(piece)


def encode_dat(path: Path, content: ImatrixContent) -> bytes:
    """The older format. Every entry was called once per chunk."""
    n_calls = max(_int32(content.n_chunks), 1)
    parts = [struct.pack("<i", len(content.moments))]
    for name, entry in content.moments.items():
        values = _stored(path, name, entry.mean_square * n_calls).reshape(-1)
        parts += [_dat_string(name), struct.pack("<ii", n_calls, values.size), values.tobytes()]
    dataset = ", ".join(content.datasets)[:256]  # readers have limits
    return b"".join([*parts, struct.pack("<i", _int32(content.n_chunks)), _dat_string(dataset)])


def _plan(content: ImatrixContent) -> GGUFPlan:
    plan = GGUFPlan()
    plan.set(keys.TYPE, "imatrix", ValueType.STRING)
    plan.set_array(keys.IMATRIX_DATASETS, list(content.datasets), ValueType.STRING)
    plan.set(keys.IMATRIX_CHUNK_COUNT, _int32(content.n_chunks), ValueType.UINT32)
    plan.set(keys.IMATRIX_CHUNK_SIZE, content.chunk_size, ValueType.UINT32)
    if content.gram_sources:
        plan.set_array(keys.GRAM_TENSORS, list(content.gram_sources), ValueType.STRING)
        plan.set_array(keys.GRAM_SOURCES, list(content.gram_sources.values()), ValueType.STRING)
    f32 = by_name("F32").id
    for name, entry in content.moments.items():
        plan.add_tensor(name + SUMS, entry.sums.shape[::-1], f32)
        plan.add_tensor(name + COUNTS, (1, entry.counts.size), f32)
    for name, parts in content.triangles.items():
        plan.add_tensor(name + grams.SUFFIX, (parts[0].size,), f32)
    return plan


def _added(parts: Sequence[Floats]) -> Iterator[Floats]:
    """The sum of some triangles, piece by piece: they may be views of files larger than memory."""
    for start in range(0, parts[0].size, _GRAM_PIECE):
        total = parts[0][start : start + _GRAM_PIECE].copy()
        for part in parts[1:]:
            total += part[start : start + _GRAM_PIECE]
        yield total


def _stored(path: Path, name: str, values: npt.NDArray[np.float64]) -> Floats:
    """Values as float32; sums of damaged files may not fit."""
    if values.size and float(values.max()) > float(np.finfo(np.float32).max):
        raise QuantizeError(f"{path}: the sums of {name!r} are too large for float32; a merged file is damaged")
    return values.astype("<f4")


def _int32(count: int) -> int:
    """A count as both formats hold it."""
    return min(count, 2**31 - 1)


def _dat_string(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<i", len(raw)) + raw
