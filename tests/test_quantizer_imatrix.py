"""iqrun.quantizer.imatrix: both file formats, and damaged files (S19)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iqrun.errors import QuantizeError
from iqrun.gguf import TensorInfo
from iqrun.gguf.tensor_type import find
from iqrun.quantizer import read_imatrix
from tests.emulated import n_random
from tests.gguf_builder import F16, F32, STRING, UINT32, RawGGUF, kv, kv_array

VALUES = np.array([0.5, 2.0, 0.0, 8.0], "<f4")


def dat_entry(name: bytes, values: np.ndarray, n_calls: int = 1, n_values: int | None = None) -> bytes:
    count = len(values) if n_values is None else n_values
    return struct.pack("<i", len(name)) + name + struct.pack("<ii", n_calls, count) + values.astype("<f4").tobytes()


def dat_file(path: Path, *entries: bytes, n_entries: int | None = None, tail: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<i", len(entries) if n_entries is None else n_entries) + b"".join(entries) + tail)
    return path


def gguf_file(path: Path, name: str, sums: np.ndarray, counts: np.ndarray, type_id: int = F32) -> Path:
    """Sums (n_matrices, n_cols) and counts (n_matrices,), as llama.cpp lays them out."""
    kvs = [kv("general.type", STRING, "imatrix"), kv_array("imatrix.datasets", STRING, ["text.txt"])]
    raw = RawGGUF(kvs=[*kvs, kv("imatrix.chunk_count", UINT32, 7)])
    raw.add_tensor(f"{name}.in_sum2", sums.shape[::-1], type_id, sums.astype("<f4").tobytes())
    raw.add_tensor(f"{name}.counts", (1, len(counts)), F32, counts.astype("<f4").tobytes())
    return raw.write(path)


def tensor(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, find(F16), shape, 1, 1, 0)


def test_legacy_file_is_read(tmp_path: Path) -> None:
    """Values are divided by the number of calls; the tail tells chunks and text."""
    tail = struct.pack("<ii", 12, 8) + b"wiki.txt"
    path = dat_file(tmp_path / "m.dat", dat_entry(b"a", VALUES, 4), dat_entry(b"b", VALUES[:1]), tail=tail)
    matrix = read_imatrix(path)
    assert (matrix.n_chunks, matrix.dataset, list(matrix.entries)) == (12, "wiki.txt", ["a", "b"])
    assert (VALUES / 4).tolist() == matrix.entries["a"].tolist()
    short = read_imatrix(dat_file(tmp_path / "short.dat", dat_entry(b"a", VALUES)))
    assert (short.n_chunks, short.dataset) == (0, "")


def test_gguf_file_is_read(tmp_path: Path) -> None:
    """Sums are divided by counts, per expert; an expert that was never used has zeros."""
    sums, counts = np.stack([VALUES, VALUES * 0]), np.array([2, 0])
    matrix = read_imatrix(gguf_file(tmp_path / "m.gguf", "blk.0.ffn_down_exps.weight", sums, counts))
    assert (matrix.n_chunks, matrix.dataset) == (7, "text.txt")
    found = matrix.of(tensor("blk.0.ffn_down_exps.weight", 4, 3, 2))
    assert found is not None
    assert [(VALUES / 2).tolist(), [0, 0, 0, 0]] == found.tolist()
    assert matrix.of(tensor("other", 4, 3)) is None


def test_wrong_length_names_entry_and_sizes(tmp_path: Path) -> None:
    """An entry of another model does not fit the tensor."""
    matrix = read_imatrix(dat_file(tmp_path / "m.dat", dat_entry(b"a", VALUES)))
    with pytest.raises(QuantizeError, match="'a' has 4 values, but the tensor needs 8"):
        matrix.of(tensor("a", 8, 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
@pytest.mark.parametrize("form", ["dat", "gguf"])
def test_s19_bad_values(tmp_path: Path, bad: float, form: str) -> None:
    """S19: NaN, infinite and negative values are found when the file is read, with their place."""
    values = VALUES.copy()
    values[2] = bad
    if form == "dat":
        path = dat_file(tmp_path / "m", dat_entry(b"good", VALUES), dat_entry(b"blk.0.x", values))
    else:
        path = gguf_file(tmp_path / "m", "blk.0.x", values[None], np.array([1]))
    with pytest.raises(QuantizeError, match=r"'blk\.0\.x' holds .* at column 2"):
        read_imatrix(path)


def test_s19_damaged_legacy_files(tmp_path: Path) -> None:
    """S19: counts and lengths that lie, duplicates, nothing at all."""
    entry = dat_entry(b"a", VALUES)
    for n_entries in (0, -1, 5, 2**31 - 1):
        with pytest.raises(QuantizeError, match="not an importance matrix"):
            read_imatrix(dat_file(tmp_path / "m.dat", entry, n_entries=n_entries))
    for length in (0, -1, 1025, 2**31 - 1):
        broken = struct.pack("<i", length) + entry[4:]
        with pytest.raises(QuantizeError, match=r"name is .* bytes long"):
            read_imatrix(dat_file(tmp_path / "m.dat", broken))
    for n_values in (0, -1, 5, 2**30, 2**31 - 1):
        with pytest.raises(QuantizeError, match=r"m\.dat: .*'a'"):
            read_imatrix(dat_file(tmp_path / "m.dat", dat_entry(b"a", VALUES, n_values=n_values)))
    with pytest.raises(QuantizeError, match="'a' occurs twice"):
        read_imatrix(dat_file(tmp_path / "m.dat", entry, entry))
    for data in (b"", b"abc", bytes(100)):
        (tmp_path / "m.dat").write_bytes(data)
        with pytest.raises(QuantizeError, match="importance matrix"):
            read_imatrix(tmp_path / "m.dat")
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(QuantizeError, match="the importance matrix cannot be read"):
            read_imatrix(path)


def test_s19_damaged_gguf_files(tmp_path: Path) -> None:
    """S19: sums without counts, counts that do not fit or are not numbers, other types, a model instead."""
    ones = np.ones((2, 4))
    with pytest.raises(QuantizeError, match="has 2 sums but 3 counts"):
        read_imatrix(gguf_file(tmp_path / "m", "a", ones, np.ones(3)))
    for count in (np.nan, np.inf, -1):
        with pytest.raises(QuantizeError, match="count that is negative or not finite"):
            read_imatrix(gguf_file(tmp_path / "m", "a", ones, np.array([1, count])))
    with pytest.raises(QuantizeError, match=r"'a\.in_sum2' is missing or not F32"):
        read_imatrix(gguf_file(tmp_path / "m", "a", ones, np.ones(2), type_id=F16))
    raw = RawGGUF()
    raw.add_tensor("a.in_sum2", (4,), F32, bytes(16))
    with pytest.raises(QuantizeError, match=r"'a\.counts' is missing"):
        read_imatrix(raw.write(tmp_path / "m"))
    with pytest.raises(QuantizeError, match="it has no entries"):
        read_imatrix(RawGGUF().write(tmp_path / "m"))


_SEED = struct.pack("<i", 2) + dat_entry(b"blk.0.attn_q.weight", VALUES) + dat_entry(b"b", VALUES)


@settings(max_examples=n_random(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, len(_SEED) - 1), st.integers(0, 255)), max_size=4), cut=st.integers(0, 90)
)
def test_mutated_legacy_file_is_read_or_refused(tmp_path: Path, edits: list[tuple[int, int]], cut: int) -> None:
    """Whatever bytes change or are missing, reading gives finite values or QuantizeError."""
    data = bytearray(_SEED)
    for place, value in edits:
        data[place] = value
    path = tmp_path / "m.dat"
    path.write_bytes(data[: len(data) - cut])
    try:
        matrix = read_imatrix(path)
    except QuantizeError:
        return
    assert all(np.isfinite(values).all() for values in matrix.entries.values())
