"""iqrun.quantizer.gain: encoded rows neither shrink nor grow."""

from __future__ import annotations

import numpy as np
import pytest

from iqrun import formats
from iqrun.formats import FORMATS
from iqrun.quantizer.gain import unbias

SCALED = ["IQ2_KS", "IQ2_K", "IQ2_KL", "IQ3_KS", "IQ3_K", "IQ4_KSS", "IQ4_KS", "IQ4_K", "IQ5_KS", "IQ5_K", "IQ6_K"]


def rows(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((8, 512)).astype(np.float32) * np.float32(0.02)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("weighted", [False, True])
def test_gain_becomes_one(name: str, weighted: bool) -> None:
    """After unbias <x, y> = <x, x> up to the rounding of fp16, and the squared error hardly grows."""
    x = rows()
    w = np.random.default_rng(1).uniform(0.1, 10, 512).astype(np.float32) if weighted else np.ones(512, np.float32)
    q = formats.encode(x, name, w if weighted else None)
    before = formats.decode(q, name, 512)
    assert unbias(q, FORMATS[name], x, before, w if weighted else None)
    after = formats.decode(q, name, 512)
    gain = (w * x * after).sum(axis=1) / (w * x * x).sum(axis=1)
    assert np.allclose(gain, 1, atol=2e-3)
    errors = [(w * (x - y).astype(np.float64) ** 2).sum() for y in (before, after)]
    assert errors[1] < 1.12 * errors[0]


@pytest.mark.parametrize("name", ["Q6_K", "Q8_0", "IQ4_NL", "Q4_0", "BF16", "F32"])
def test_other_types_are_left_alone(name: str) -> None:
    """Types for which it is not defined keep their bytes."""
    x = rows()
    q = formats.encode(x, name)
    before = q.copy()
    assert not unbias(q, FORMATS[name], x, formats.decode(q, name, 512), None)
    assert np.array_equal(before, q)


@pytest.mark.parametrize("name", SCALED)
def test_rows_that_say_nothing_are_left_alone(name: str) -> None:
    """Zero rows, rows decoded to zero or with the wrong sign keep their scales; so does a scale at fp16's end."""
    x = rows()
    q = formats.encode(x, name)
    for decoded in (np.zeros_like(x), -x, x / 100):
        same = q.copy()
        unbias(same, FORMATS[name], x, decoded, None)
        assert np.array_equal(q, same)
    zeros = np.zeros_like(x)
    q = formats.encode(zeros, name)
    unbias(q, FORMATS[name], zeros, zeros, np.zeros(512, np.float32))
    assert not formats.decode(q, name, 512).any()
    huge = np.full((8, FORMATS[name].row_bytes(512)), 0, np.uint8)
    scale = huge[:, : max(2, FORMATS[name].row_meta_bytes)]
    scale[:] = np.frombuffer(np.finfo("<f2" if scale.shape[1] == 2 else "<f4").max.tobytes(), np.uint8)
    kept = huge.copy()
    unbias(huge, FORMATS[name], x, x / np.float32(1.2), None)
    assert np.array_equal(kept, huge)
