"""iqrun.gguf.piece_file: the sizes and places of the writes that make a file."""

from __future__ import annotations

import errno
import itertools
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqrun.gguf import GGUFFile, part_file
from iqrun.gguf.piece_file import PIECE_BYTES, PieceFile
from iqrun.quantizer import quantize
from tests.gguf_builder import tiny_llama


class Recorder(FileIO):
    """A file that notes where each write began and how long it was."""

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        self.writes: list[tuple[int, int]] = []

    def write(self, data: Any) -> int:
        self.writes.append((self.tell(), len(data)))
        return super().write(data)


def assert_in_pieces(writes: list[tuple[int, int]], n_bytes: int) -> None:
    """Every write begins at a multiple of a piece, and is whole pieces or reaches to the end of the file."""
    assert writes
    for at, size in writes:
        assert at % PIECE_BYTES == 0
        assert size % PIECE_BYTES == 0 or at + size == n_bytes


def random_bytes(n: int) -> bytes:
    return np.random.default_rng(n).bytes(n)


@pytest.mark.parametrize("n_bytes", [0, 1, 4096, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES + 5])
@pytest.mark.parametrize("step", [100_003, PIECE_BYTES // 4, PIECE_BYTES, 2 * PIECE_BYTES + 1])
@pytest.mark.parametrize("flushes", [False, True])
def test_writes_are_whole_pieces(tmp_path: Path, n_bytes: int, step: int, flushes: bool) -> None:
    """However the bytes come, and if they are flushed at any moment; after a flush all of them are in the file."""
    data = random_bytes(n_bytes)
    raw = Recorder(tmp_path / "f", "x")
    file = PieceFile(raw, n_bytes)
    for first in range(0, n_bytes, step):
        file.write(data[first : first + step])
        if flushes:
            file.flush()
            end = min(first + step, n_bytes)
            assert data[:end] == (tmp_path / "f").read_bytes()[:end]
    file.flush()
    file.close()
    assert data == (tmp_path / "f").read_bytes()
    if n_bytes:
        assert_in_pieces(raw.writes, n_bytes)


@pytest.mark.parametrize("at", [0, 7, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 4096])
@pytest.mark.parametrize("there", [-5, 0, 3 * PIECE_BYTES])
def test_going_on_in_the_middle(tmp_path: Path, at: int, there: int) -> None:
    """The first bytes are kept, what follows them is not, and the writes are those of a new file."""
    n_bytes = 4 * PIECE_BYTES + 77
    data = bytearray(random_bytes(n_bytes))
    kept = max(0, at + there)
    data[kept:at] = bytes(max(0, at - kept))  # a file that was cut before `at` is filled up with zeros
    (tmp_path / "f").write_bytes(data[: min(at, kept)] + b"?" * max(0, there))
    raw = Recorder(tmp_path / "f", "r+")
    file = PieceFile(raw, n_bytes, at)
    assert at == (tmp_path / "f").stat().st_size
    file.write(data[at:])
    file.flush()
    file.close()
    assert data == (tmp_path / "f").read_bytes()
    assert_in_pieces(raw.writes, n_bytes)


def test_a_full_disk_keeps_what_was_flushed(tmp_path: Path) -> None:
    """Room for the bytes but not for the rest of their piece is enough; less is an error."""

    class Small(FileIO):
        def write(self, data: Any) -> int:
            room = 10_000 - self.tell()
            if room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:room])

    data = random_bytes(10_001)
    file = PieceFile(Small(tmp_path / "f", "x"), 5_000_000)
    file.write(data[:10_000])
    file.flush()
    assert data[:10_000] == (tmp_path / "f").read_bytes()
    file.write(data[10_000:])
    with pytest.raises(OSError, match="No space left"):
        file.flush()
    file.close()


@pytest.mark.parametrize("max_shard_bytes", [None, 3 * PIECE_BYTES])
def test_quantizing_writes_whole_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_shard_bytes: int | None
) -> None:
    """Resumed, in one file or several, with hashes: all writes of tensors are whole pieces but a file's last."""
    made: list[tuple[Recorder, int]] = []

    def recorded(raw: FileIO, n_bytes: int, at: int = 0) -> PieceFile:
        recorder = Recorder(Path(str(raw.name)), "r+")
        raw.close()
        made.append((recorder, n_bytes))
        return PieceFile(recorder, n_bytes, at)

    def stop(*_: object) -> None:
        if next(calls) == 15:
            raise KeyboardInterrupt

    monkeypatch.setattr(part_file, "PieceFile", recorded)
    source = tiny_llama(tmp_path / "in.gguf", n_embd=512, n_ff=2048, n_layer=2, weight_type="F16")
    calls = itertools.count(1)
    options: dict[str, Any] = {"effort": "fast", "resume": True, "hashes": True, "max_shard_bytes": max_shard_bytes}
    with pytest.raises(KeyboardInterrupt):
        quantize(source, tmp_path / "out.gguf", "Q8_0", progress=stop, **options)
    report = quantize(source, tmp_path / "out.gguf", "Q8_0", **options)
    assert len(made) >= 2
    assert report.n_bytes > 3 * PIECE_BYTES
    for recorder, n_bytes in made:
        assert_in_pieces(recorder.writes, n_bytes)
    with GGUFFile(report.destination) as file:
        assert len(file.tensors) == len(report.tensors)
