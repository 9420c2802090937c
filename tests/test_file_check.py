"""iqrun.file_check: NaN, infinities and other bytes than were written are found, in every type, in bounded memory."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from iqrun import GGUFError, GGUFFile, file_check, formats
from iqrun.file_check import TensorCheck, check_tensors
from iqrun.formats import FORMATS
from tests.gguf_builder import F16, F32, STRING, RawGGUF, kv_array, tiny_llama


def checks_of(path: Path) -> dict[str, TensorCheck]:
    with GGUFFile(path) as file:
        return {check.info.name: check for check in check_tensors(file)}


def test_a_sound_model_is_sound(tmp_path: Path) -> None:
    """Nothing is found where nothing is wrong, and progress ends at the number of bytes."""
    calls: list[tuple[int, int, str]] = []
    with GGUFFile(tiny_llama(tmp_path / "m", weight_type="F16")) as file:
        found = list(check_tensors(file, lambda *call: calls.append(call)))
        assert [check.info.name for check in found] == list(file.tensors)
    assert all(check.sound and check.n_nan == 0 and check.hash_agrees is None for check in found)
    assert calls[-1][0] == calls[-1][1] == sum(check.info.n_bytes for check in found)


@pytest.mark.parametrize("name", [name for name, kind in FORMATS.items() if kind.can_encode])
def test_s16_damage_in_any_type_is_found(tmp_path: Path, name: str) -> None:
    """S16: bytes of a block (its scales too) set to 0xFF give NaN or finite weights; what decodes to NaN is found, in
    its row and column."""
    kind = formats.by_name(name)
    rows = formats.encode(np.ones((3, 512), np.float32), name)
    damaged = rows.copy()
    damaged[1, kind.row_meta_bytes + (512 // kind.block_weights // 2) * kind.block_bytes :] = 0xFF
    bad = ~np.isfinite(formats.decode(damaged, name, 512))
    file = RawGGUF()
    file.add_tensor("good", (512, 3), kind.id, rows.tobytes())
    file.add_tensor("bad", (512, 3), kind.id, damaged.tobytes())
    found = checks_of(file.write(tmp_path / "f"))
    assert found["good"].sound
    assert found["bad"].sound == (not bad.any())
    assert (found["bad"].n_nan or 0) + (found["bad"].n_inf or 0) == bad.sum()
    if bad.any():
        assert found["bad"].first == tuple(np.argwhere(bad)[0])


def test_nan_and_infinity_are_told_apart(tmp_path: Path) -> None:
    """Both are counted; the first of either is told."""
    weights = np.zeros((2, 4), np.float16)
    weights[0, 2], weights[1, 1], weights[1, 3] = np.inf, np.nan, -np.inf
    file = RawGGUF()
    file.add_tensor("t", (4, 2), F16, weights.tobytes())
    found = checks_of(file.write(tmp_path / "f"))["t"]
    assert (found.n_nan, found.n_inf, found.first, found.sound) == (1, 2, (0, 2), False)


@pytest.mark.parametrize("name", ["F32", "IQ4_NL", "IQ4_KS", "IQ3_K"])
def test_rows_longer_than_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A row of any length is decoded in pieces, with its row_meta in front of each."""
    monkeypatch.setattr(file_check, "_PIECE_WEIGHTS", 512)
    kind = formats.by_name(name)
    rows = formats.encode(np.ones((2, 1280), np.float32), name)
    rows[1, -kind.block_bytes :] = 0xFF
    bad = ~np.isfinite(formats.decode(rows, name, 1280))
    file = RawGGUF()
    file.add_tensor("t", (1280, 2), kind.id, rows.tobytes())
    found = checks_of(file.write(tmp_path / "f"))["t"]
    assert found.first == (tuple(np.argwhere(bad)[0]) if bad.any() else None)
    assert (found.n_nan, found.n_inf) == (np.isnan(formats.decode(rows, name, 1280)).sum(), 0)


def test_types_that_cannot_be_decoded_say_so(tmp_path: Path) -> None:
    """A type of others is not looked at, and not called damaged."""
    file = RawGGUF()
    file.add_tensor("t", (256, 1), 18, b"\xff" * 98)
    found = checks_of(file.write(tmp_path / "f"))["t"]
    assert (found.n_nan, found.n_inf, found.sound) == (None, None, True)


def test_stored_hashes_are_compared(tmp_path: Path) -> None:
    """A changed byte that still is a number is found by its hash; a hash of a tensor that is not there is an error."""
    data = np.ones(64, np.float32).tobytes()
    digest = hashlib.sha256(data).hexdigest()
    for name, stored, agrees in (("t", digest, True), ("t", "0" * 64, False)):
        arrays = {"iqrun.hash.names": [name], "iqrun.hash.sha256": [stored]}
        file = RawGGUF(kvs=[kv_array(key, STRING, values) for key, values in arrays.items()])
        file.add_tensor("t", (64,), F32, data)
        found = checks_of(file.write(tmp_path / "f"))["t"]
        assert (found.hash_agrees, found.sound) == (agrees, agrees)
    file.kvs[0] = kv_array("iqrun.hash.names", STRING, ["gone"])
    with pytest.raises(GGUFError, match="'gone'"):
        checks_of(file.write(tmp_path / "f"))


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A tensor of 64 MiB is checked in a few MiB."""
    file = RawGGUF()
    file.add_tensor("t", (1 << 24,), F32, bytes(1 << 26))
    path = file.write(tmp_path / "f")
    del file
    tracemalloc.start()
    assert checks_of(path)["t"].sound
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
