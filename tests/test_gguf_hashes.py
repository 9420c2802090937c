"""iqrun.gguf.hashes: tensors' SHA-256, stored and verified."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from iqrun.errors import GGUFError
from iqrun.gguf import GGUFFile, hashes
from iqrun.quantizer import quantize
from tests.gguf_builder import F32, STRING, RawGGUF, kv_array, tiny_llama


@pytest.fixture
def hashed(tmp_path: Path) -> Path:
    source = tiny_llama(tmp_path / "in.gguf", n_embd=256, n_ff=512, n_layer=1, weight_type="F16")
    quantize(source, tmp_path / "out.gguf", "IQ4_KS", hashes=True, effort="fast")
    return tmp_path / "out.gguf"


def test_every_tensor_is_hashed(hashed: Path) -> None:
    """The stored digests are SHA-256 of the stored bytes, and all verify."""
    with GGUFFile(hashed) as file:
        wanted = {name: hashlib.sha256(file.tensor_bytes(name).tobytes()).hexdigest() for name in file.tensors}
        assert wanted == hashes.stored(file)
        assert [(info, True) for info in file.tensors.values()] == list(hashes.verify(file))


def test_one_flipped_bit_is_found(hashed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage in the last byte of a tensor: that tensor and no other, however small the pieces that are read."""
    monkeypatch.setattr(hashes, "_CHUNK_BYTES", 100)
    with GGUFFile(hashed) as file:
        info = file.tensors["blk.0.ffn_up.weight"]
    data = bytearray(hashed.read_bytes())
    data[info.offset + info.n_bytes - 1] ^= 1
    hashed.write_bytes(data)
    with GGUFFile(hashed) as file:
        assert ["blk.0.ffn_up.weight"] == [info.name for info, is_good in hashes.verify(file) if not is_good]


def test_a_file_without_hashes(tmp_path: Path) -> None:
    """Nothing to verify is no error."""
    with GGUFFile(tiny_llama(tmp_path / "in.gguf")) as file:
        assert ({}, []) == (hashes.stored(file), list(hashes.verify(file)))


@pytest.mark.parametrize(
    ("names", "digests", "message"),
    [
        (["t"], [], "do not pair 1 tensors with 0"),
        (["t", "t"], ["0" * 64] * 2, "do not pair"),
        (["t"], ["xyz"], "the hash of 't' is no SHA-256: 'xyz'"),
        (["lost"], ["0" * 64], "lists 'lost', but there is no such tensor"),
    ],
)
def test_malformed_hashes_are_named(tmp_path: Path, names: list[str], digests: list[str], message: str) -> None:
    """Arrays that do not fit together, strings that are no digest, and names without a tensor."""
    kvs = [kv_array("iqrun.hash.names", STRING, names), kv_array("iqrun.hash.sha256", STRING, digests)]
    raw = RawGGUF(kvs=kvs)
    raw.add_tensor("t", (4,), F32, bytes(16))
    with GGUFFile(raw.write(tmp_path / "in.gguf")) as file, pytest.raises(GGUFError, match=message):
        list(hashes.verify(file))
