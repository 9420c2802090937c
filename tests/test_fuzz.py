"""The fuzz targets on mutated seeds, with a fixed seed: what a long run would notice at once (fuzz/README.md)."""

from __future__ import annotations

import random
import sys

import pytest

from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS
from iqrun.chat.template import ChatTemplate
from iqrun.tokenizer.bpe import BPETokenizer
from tests.emulated import n_random

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the targets make their files with memfd_create")

N_RUNS = n_random(150)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few edits: bytes changed, removed, repeated, or numbers made extreme."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(found) + 1), rng.choice([1, 4, 8])
        edit = rng.randrange(4)
        if edit == 0:
            found[at : at + size] = rng.randbytes(size)
        elif edit == 1:
            del found[at : at + size]
        elif edit == 2:
            found[at:at] = found[max(0, at - 16) : at]
        else:
            found[at : at + size] = rng.choice([b"\xff", b"\0", b"\x80"]) * size
    return bytes(found)


@pytest.mark.parametrize("name", list(TARGETS))
def test_target_survives_mutated_seeds(name: str) -> None:
    """Each target handles its seeds and mutations of them, raising nothing but what it expects."""
    seeds = list(SEEDS[name]())
    rng = random.Random(name)
    for data in seeds:
        TARGETS[name](data)
    for _ in range(N_RUNS):
        TARGETS[name](mutated(rng.choice(seeds), rng))


def test_targets_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not iqrun's own passes through: the fuzzers see it."""

    def broken(*_: object, **__: object) -> str:
        raise KeyError("x")

    monkeypatch.setattr(ChatTemplate, "render", broken)
    monkeypatch.setattr(BPETokenizer, "encode", broken)
    for name in ("template", "tokenizer"):
        with pytest.raises(KeyError):
            for data in SEEDS[name]():
                TARGETS[name](data)
