"""The storage types decoded a second time, in numpy, from the written layouts: one formula per weight index.

Shares nothing with the C decoders (which unpack whole groups), so that random bytes test both against each other.
A superblock is uint8 (n, block_bytes); `I` runs over its 256 weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

I = np.arange(256)  # noqa: E741

TWO_BIT = np.array([-31, -13, 1, 17])
THREE_BIT = np.array([-63, -40, -23, -10, 1, 13, 28, 47])
FOUR_BIT = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
# fmt: off
FIVE_BIT = np.array([
    -126, -114, -103, -92, -83, -74, -65, -57, -50, -43, -36, -30, -24, -18, -12, -6,
    -1, 5, 11, 17, 23, 29, 36, 43, 51, 59, 68, 77, 87, 97, 109, 121,
])
PAIRS = np.array([
    (-63, -23), (-63, 13), (-40, -63), (-40, -10), (-40, 13), (-40, 47), (-23, -40), (-23, -23),
    (-23, 1), (-23, 13), (-23, 28), (-10, -63), (-10, 1), (-10, 13), (-10, 47), (1, -23),
    (1, -10), (1, 1), (1, 13), (1, 28), (13, -40), (13, -23), (13, -10), (13, 1),
    (13, 13), (28, -63), (28, -23), (28, 1), (28, 28), (28, 47), (47, -23), (47, 13),
])
# fmt: on


def half(b: Bytes) -> Floats:
    return b.copy().view("<f2").astype(np.float32)


def bit(b: Bytes, index: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """Bits of a little-endian field, by their number."""
    return (b[:, index // 8] >> index % 8 & 1).astype(np.int64)


def field(b: Bytes, index: npt.NDArray[np.intp], width: int) -> npt.NDArray[np.int64]:
    """Unsigned fields of `width` bits, by number, counted from the lowest bit of the first byte."""
    return sum(bit(b, width * index + k) << k for k in range(width))  # type: ignore[return-value]


def low_two(qs: Bytes) -> npt.NDArray[np.int64]:
    return (qs[:, 32 * (I // 128) + I % 32] >> (2 * (I // 32 % 4)).astype(np.uint8) & 3).astype(np.int64)


def nibble(qs: Bytes, apart: int) -> npt.NDArray[np.int64]:
    return (qs[:, apart * (I // (2 * apart)) + I % apart] >> (4 * (I // apart % 2)).astype(np.uint8) & 15).astype(
        np.int64
    )


def top_bit(qh: Bytes) -> npt.NDArray[np.int64]:
    return (qh[:, I % 32] >> (I // 32).astype(np.uint8) & 1).astype(np.int64)


def iq2_k(b: Bytes, d: Floats | None) -> Floats:
    sb = I // 16
    scale = field(b[:, 4:12], sb, 4) - 8
    return half(b[:, :2]) * scale.astype(np.float32) * (TWO_BIT[low_two(b[:, 12:])] + 5 * bit(b[:, 2:4], sb))


def iq2_ks(b: Bytes, d: Floats) -> Floats:
    sb = I // 32
    scale = field(b[:, 2:6], sb, 4) + 16 * bit(b[:, :2], 8 + sb) - 16
    return d * scale.astype(np.float32) * (TWO_BIT[low_two(b[:, 6:])] + 5 * bit(b[:, :2], sb))


def iq2_kl(b: Bytes, d: Floats) -> Floats:
    sb, pair = I // 32, I % 32 // 2
    low = b[:, 2 + sb % 4] >> (4 * (sb // 4)).astype(np.uint8) & 15
    scale = low + 16 * field(b[:, :2], sb, 2) - 32
    index = b[:, 6 + 16 * (sb // 2) + pair] >> (4 * (sb % 2)).astype(np.uint8) & 15
    index = index + 16 * (b[:, 70 + pair] >> sb.astype(np.uint8) & 1)
    return d * scale.astype(np.float32) * PAIRS[index, I % 2]


def iq3_k(b: Bytes, d: Floats | None) -> Floats:
    sb = I // 16
    scale = (2 * field(b[:, 6:14], sb, 4) + 1) * (1 - 2 * bit(b[:, 4:6], sb))
    code = low_two(b[:, 14:78]) + 4 * top_bit(b[:, 78:])
    return half(b[:, :2]) * scale.astype(np.float32) * (THREE_BIT[code] + 4 * bit(b[:, 2:4], sb))


def iq3_ks(b: Bytes, d: Floats) -> Floats:
    sb = I // 32
    low = (b[:, 2 + sb % 4] >> (4 * (sb // 4)).astype(np.uint8) & 15).astype(np.int64)
    scale = low + 16 * bit(b[:, :2], sb) - 16
    code = low_two(b[:, 6:70]) + 4 * top_bit(b[:, 70:])
    return d * scale.astype(np.float32) * (THREE_BIT[code] + 4 * bit(b[:, :2], 8 + sb))


def iq4_k(b: Bytes, d: Floats | None) -> Floats:
    sb = I // 16
    scale = field(b[:, 8:16], sb, 4) + 16 * field(b[:, 4:8], sb, 2) - 32
    return half(b[:, :2]) * scale.astype(np.float32) * (FOUR_BIT[nibble(b[:, 16:], 16)] + 4 * bit(b[:, 2:4], sb))


def iq4_ks(b: Bytes, d: Floats) -> Floats:
    byte = b[:, I // 32].astype(np.int64)
    scale = (byte & 254) - 127
    return d * scale.astype(np.float32) * (FOUR_BIT[nibble(b[:, 8:], 16)] + 4 * (byte & 1))


def iq4_kss(b: Bytes, d: Floats) -> Floats:
    words = b.copy().view("<u2").reshape(-1, 8, 8)
    scales = sum((words[:, :, k] & 1) << k for k in range(8)).astype(np.uint8)
    codes = words & 0xFFFE
    codes = (codes ^ codes >> 1).reshape(-1, 64).view(np.uint8)
    return iq4_ks(np.concatenate([scales, codes], axis=1), d)


def iq5_k(b: Bytes, d: Floats | None) -> Floats:
    sb = I // 16
    scale = field(b[:, 8:16], sb, 4) + 16 * field(b[:, 4:8], sb, 2) - 32
    code = nibble(b[:, 16:144], 32) + 16 * top_bit(b[:, 144:])
    return half(b[:, :2]) * scale.astype(np.float32) * (FIVE_BIT[code] + 2 * bit(b[:, 2:4], sb))


def iq5_ks(b: Bytes, d: Floats) -> Floats:
    byte = b[:, I // 32].astype(np.int64)
    code = nibble(b[:, 8:136], 32) + 16 * top_bit(b[:, 136:])
    return d * ((byte & 254) - 127).astype(np.float32) * (FIVE_BIT[code] + 2 * (byte & 1))


def iq6_k(b: Bytes, d: Floats | None) -> Floats:
    sb = I // 16
    high = low_two(b[:, 148:])
    q = (nibble(b[:, 20:148], 32) + 16 * high).astype(np.float64)
    cubic = np.float32(-0.11218) + q * np.float32(0.0011972)  # each step fused: exact product, one rounding
    for c in (np.float32(6.2568), np.float32(-127)):
        cubic = c + q * cubic.astype(np.float32).astype(np.float64)
    value = cubic.astype(np.float32) + bit(b[:, 2:4], sb).astype(np.float32)
    scale = b[:, 4:20].view(np.int8)[:, sb].astype(np.float32)
    return half(b[:, :2]) * scale * value


def q6_0(b: Bytes, d: Floats | None) -> Floats:
    i = np.arange(32)
    low = b[:, 10 + i % 16] >> (4 * (i // 16)).astype(np.uint8) & 15
    high = b[:, 2 + i % 8] >> (4 * (i // 8 % 2) + 2 * (i // 16)).astype(np.uint8) & 3
    return half(b[:, :2]) * (low + 16.0 * high - 32).astype(np.float32)


DECODERS: dict[str, Callable[..., Floats]] = {
    "Q6_0": q6_0,
    "IQ2_K": iq2_k,
    "IQ2_KS": iq2_ks,
    "IQ2_KL": iq2_kl,
    "IQ3_K": iq3_k,
    "IQ3_KS": iq3_ks,
    "IQ4_K": iq4_k,
    "IQ4_KS": iq4_ks,
    "IQ4_KSS": iq4_kss,
    "IQ5_K": iq5_k,
    "IQ5_KS": iq5_ks,
    "IQ6_K": iq6_k,
}


def decode_row(name: str, row: Bytes, row_meta_bytes: int, block_bytes: int) -> Floats:
    """One stored row as float32."""
    row_scale = row[:row_meta_bytes].copy().view("<f2" if row_meta_bytes == 2 else "<f4").astype(np.float32)
    blocks = row[row_meta_bytes:].reshape(-1, block_bytes)
    return np.asarray(DECODERS[name](blocks, row_scale), dtype=np.float32).reshape(-1)
