"""Half and bfloat16 conversions of the native core, seen through the F16 and BF16 types."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from iqrun.formats import decode, encode

ALL = np.arange(65536, dtype=np.uint16)


def around_midpoints(grid: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each value of an ascending grid, the midpoints to the next (ties), and their float32 neighbours."""
    middle = ((grid[:-1].astype(np.float64) + grid[1:]) / 2).astype(np.float32)
    points = np.concatenate([grid, middle])
    near = np.concatenate([points, np.nextafter(points, np.float32(0)), np.nextafter(points, np.float32(np.inf))])
    return np.concatenate([near, -near]).astype(np.float32)


def bf16_of(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Nearest bfloat16, ties to even, by exact comparison of the two neighbours in float64."""
    low = x.view(np.uint32) >> 16
    below, above = ((bits << 16).astype(np.uint32).view(np.float32).astype(np.float64) for bits in (low, low + 1))
    exact = x.astype(np.float64)
    to_low, to_high = np.abs(exact - below), np.abs(above - exact)
    up = (to_high < to_low) | ((to_high == to_low) & (low % 2 == 1))
    return (low + up).astype(np.uint16)


def test_f16_decodes_every_half() -> None:
    """All 65536 halves: finite and infinite ones exactly (signed zero included), NaN as NaN of the same sign."""
    decoded = decode(ALL.view(np.uint8), "F16", 65536)[0]
    with np.errstate(invalid="ignore"):
        expected = ALL.view(np.float16).astype(np.float32)
    nan = np.isnan(expected)
    np.testing.assert_array_equal(expected.view(np.uint32)[~nan], decoded.view(np.uint32)[~nan])
    assert np.isnan(decoded[nan]).all()
    np.testing.assert_array_equal(np.signbit(decoded), ALL >= 0x8000)


def test_bf16_decodes_every_value() -> None:
    """All 65536 bfloat16 are the upper halves of their float32, bit for bit."""
    decoded = decode(ALL.view(np.uint8), "BF16", 65536)[0]
    np.testing.assert_array_equal(ALL.astype(np.uint32) << 16, decoded.view(np.uint32))


def test_f16_rounds_to_nearest_even() -> None:
    """Every half, every tie between two halves and the float32 next to them round as IEEE 754 says."""
    x = around_midpoints(np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(x.astype(np.float16).view(np.uint16), encode(x, "F16").view(np.uint16)[0])


@pytest.mark.parametrize("seed", range(4))
def test_f16_rounds_random_floats(seed: int) -> None:
    """Random bit patterns within the range of halves, subnormal results included."""
    bits = np.random.default_rng(seed).integers(0, 2**32, 200_000, dtype=np.uint32)
    x = bits.view(np.float32)
    x = x[np.isfinite(x) & (np.abs(x) < 65504)]
    np.testing.assert_array_equal(x.astype(np.float16).view(np.uint16), encode(x, "F16").view(np.uint16)[0])


def test_bf16_rounds_to_nearest_even() -> None:
    """Every bfloat16, every tie and the float32 next to them, subnormals included."""
    x = around_midpoints((np.arange(0x7F80, dtype=np.uint32) << 16).view(np.float32))
    x = x[np.isfinite(x)]
    np.testing.assert_array_equal(bf16_of(x), encode(x, "BF16").view(np.uint16)[0])


def test_bf16_is_exact_where_it_can_be() -> None:
    """A value that bfloat16 holds survives encoding and decoding unchanged, sign of zero included."""
    finite = ALL[(ALL & 0x7F80) != 0x7F80]
    x = (finite.astype(np.uint32) << 16).view(np.float32)
    decoded = decode(encode(x, "BF16"), "BF16", len(x))[0]
    np.testing.assert_array_equal(x.view(np.uint32), decoded.view(np.uint32))
