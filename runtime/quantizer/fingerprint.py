"""What the bytes of a quantized file depend on, as digests: an unfinished run is gone on with if all are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from iqrun.gguf import GGUFFile, GGUFPlan, keys
from iqrun.quantizer.imatrix import Imatrix
from iqrun.quantizer.jobs import Job

_SAMPLE_BYTES = 4096


def depends_on(
    source: GGUFFile, jobs: Iterable[Job], plans: Iterable[GGUFPlan], matrix: Imatrix | None, effort: str, version: str
) -> dict[str, str]:
    """Pairs of what it is, in words, and its digest."""
    encoders = [f"{job.choice.tensor.name} {job.encoder.identity}" for job in jobs if job.encoder is not None]
    return {
        "the model": _source(source),
        "the importance matrix": _matrix(matrix),
        "the types, shards or hashes": _digest(repr(_layout(plan)) for plan in plans),
        "the effort": effort,
        "the method": _digest(encoders),
        "the version of iqrun": version,
    }


def _source(source: GGUFFile) -> str:
    """Of sizes, times, metadata and both ends of every tensor: reading all of a large model would take minutes."""
    found = hashlib.sha256()
    for path in source.paths:
        status = Path(path).stat()
        found.update(repr((status.st_size, status.st_mtime_ns)).encode())
    for key in source.metadata:
        found.update(_text(key) + source.metadata.raw_value(key))
    for name, info in source.tensors.items():
        data = source.tensor_bytes(name)
        found.update(_text(name) + repr((info.type_id, info.shape)).encode())
        found.update(data[:_SAMPLE_BYTES].tobytes() + data[-_SAMPLE_BYTES:].tobytes())
    return found.hexdigest()


def _matrix(matrix: Imatrix | None) -> str:
    if matrix is None:
        return "none"
    found = hashlib.sha256(_text(repr((Path(matrix.path).name, matrix.datasets, matrix.n_chunks))))
    for name in sorted(matrix.entries):
        found.update(_text(name) + matrix.entries[name].tobytes())
    return found.hexdigest()


def _layout(plan: GGUFPlan) -> tuple[int, bool, list[tuple[str, int]]]:
    return plan.alignment, keys.HASH_NAMES in plan, [(info.name, info.type_id) for info in plan.tensors]


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256(b"\n".join(_text(text) for text in texts)).hexdigest()


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
