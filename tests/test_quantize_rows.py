"""The row encoders: error against the reference quantizer, determinism, and what hostile values do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from iqrun.errors import FormatError, UnsupportedModelError
from iqrun.formats import FORMATS, Effort, by_name, decode, encode
from iqrun.native import built_isas, check, ffi, lib, pointer

Floats = npt.NDArray[np.float32]

SHARED = Path(__file__).parents[1].parent / "shared" / "golden"

FLOATS = ["F32", "F16", "BF16"]
BLOCKS_OF_32 = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_0", "Q8_0", "IQ4_NL"]
SUPERBLOCKS = ["Q6_K", "IQ2_K", "IQ3_K", "IQ4_K", "IQ5_K", "IQ6_K"]
ROW_SCALED = ["IQ2_KS", "IQ2_KL", "IQ3_KS", "IQ4_KS", "IQ4_KSS", "IQ5_KS"]
SEARCHED = BLOCKS_OF_32 + SUPERBLOCKS + ROW_SCALED
SUB_BLOCK = {name: 16 if name in SUPERBLOCKS else 32 for name in SEARCHED}
GAUSSIAN, TINY, CONSTANT = 0, 3, 7  # rows of the fixture

every_searched = pytest.mark.parametrize("name", SEARCHED)
every_variant = pytest.mark.parametrize("variant", ["plain", "importance"])


class Reference:
    """Ten rows of 1024 weights of different kinds, and what others reach on them.

    tests/data/encoder_reference.npz: x (10, 1024), importance (1024,), types (n,), and relative RMSE (n, 2, 10) of the
    reference quantizer of ik_llama.cpp and, where known, of a near-exhaustive search; axis 1 is plain, weighted. It was
    made from the vectors that accompany the formats (manifest.json, optimum.json, blocks.npz).
    """

    def __init__(self) -> None:
        with np.load(Path(__file__).parent / "data" / "encoder_reference.npz") as file:
            self.x: Floats = file["x"]
            self.importance: Floats = file["importance"]
            self._row = {str(name): row for row, name in enumerate(file["types"])}
            self._reference, self._optimum = file["reference"], file["optimum"]

    def weights(self, variant: str) -> Floats | None:
        return self.importance if variant == "importance" else None

    def error(self, name: str, variant: str) -> npt.NDArray[np.float64]:
        return np.asarray(self._reference[self._row[name], int(variant == "importance")])

    def optimum(self, name: str, variant: str) -> npt.NDArray[np.float64]:
        return np.asarray(self._optimum[self._row[name], int(variant == "importance")])


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


def relative_error(x: Floats, y: Floats, importance: Floats | None = None) -> npt.NDArray[np.float64]:
    """sqrt(sum w (x - y)^2 / sum w x^2) of each row; 0 for rows of zeros that stay zero."""
    w = np.ones(x.shape[1]) if importance is None else importance.astype(np.float64)
    size = np.maximum(np.abs(x.astype(np.float64)).max(axis=1, keepdims=True), 1e-300)
    x64, y64 = x / size, y / size
    energy = (w * x64**2).sum(axis=1)
    return np.sqrt((w * (x64 - y64) ** 2).sum(axis=1) / np.where(energy > 0, energy, 1.0))


def coded(x: Floats, name: str, importance: Floats | None = None, effort: Effort = "normal") -> Floats:
    """The rows after a round trip."""
    return decode(encode(x, name, importance, effort), name, x.shape[1])


def hostile_rows(n_cols: int) -> Floats:
    """Zeros, constants, extremes of fp32, subnormals, huge dynamic range, sparse rows."""
    rng = np.random.default_rng(11)
    normal = rng.standard_normal((8, n_cols))
    spike = np.zeros(n_cols)
    spike[n_cols // 3] = -2.5
    with np.errstate(over="ignore", under="ignore"):
        rows = [np.zeros(n_cols), np.full(n_cols, 0.37), np.full(n_cols, -1e-38), np.full(n_cols, 3.4e38), spike]
        rows += [normal[0] * 1e30, normal[1] * 1e-30, normal[2] * 1e-42, normal[3] * 1e-6, normal[4] * 3e-8]
        rows += [np.where(normal[5] > 0, 3.4e38, -3.4e38), np.exp(20 * normal[6]).clip(0, 3e38)]
        rows += [normal[7] * (rng.random(n_cols) < 0.02), np.repeat([1e-12, 1e12], n_cols // 2)]
        return np.array(rows).astype(np.float32)


def hostile_importances(n_cols: int) -> list[Floats | None]:
    rng = np.random.default_rng(12)
    holes = np.ones(n_cols)
    holes[32:96] = 0
    wide = 10.0 ** rng.integers(-44, 38, n_cols)
    rows = [np.zeros(n_cols), holes, wide, np.eye(1, n_cols, 5)[0], np.full(n_cols, 3e38)]
    return [None] + [row.astype(np.float32) for row in rows]


# ---- error ----


@every_variant
@pytest.mark.parametrize("name", ["F16", "BF16", *SEARCHED])
def test_normal_effort_is_at_least_as_good_as_the_reference_on_every_row(
    reference: Reference, name: str, variant: str
) -> None:
    """No row of any kind, tiny weights, constants and spikes included, is worse than the reference quantizer's."""
    w = reference.weights(variant)
    error = relative_error(reference.x, coded(reference.x, name, w), w)
    assert (error <= reference.error(name, variant) * (1 + 1e-5)).all(), error / reference.error(name, variant)


@every_variant
@pytest.mark.parametrize("name", [name for name in SUPERBLOCKS + ROW_SCALED if name != "Q6_K"])
def test_fast_effort_is_at_least_as_good_as_the_reference_on_every_row(
    reference: Reference, name: str, variant: str
) -> None:
    """Ten times the speed is not bought with a larger error on any kind of row."""
    w = reference.weights(variant)
    error = relative_error(reference.x, coded(reference.x, name, w, "fast"), w)
    assert (error <= reference.error(name, variant) * (1 + 1e-5)).all(), error / reference.error(name, variant)


@every_variant
@pytest.mark.parametrize("name", ["IQ2_K", "IQ2_KS", "IQ3_K", "IQ3_KS", "IQ4_K", "IQ4_KS", "IQ5_K", "IQ5_KS"])
@pytest.mark.parametrize(("effort", "most"), [("normal", 1.015), ("best", 1.005)])
def test_errors_approach_the_near_exhaustive_optimum(
    reference: Reference, name: str, variant: str, effort: Effort, most: float
) -> None:
    """Normal is within 1.5 percent of a near-exhaustive search on every row where one was made, best within 0.5."""
    w, optimum = reference.weights(variant), reference.optimum(name, variant)
    known = np.isfinite(optimum)
    ratio = relative_error(reference.x, coded(reference.x, name, w, effort), w)[known] / optimum[known]
    assert known.sum() == 7
    assert ratio.max() <= most, ratio


@every_searched
def test_other_gaussian_rows_are_as_good(reference: Reference, name: str) -> None:
    """Rows of other seeds and scales stay within 5 percent of the reference's error on its Gaussian row."""
    x = np.random.default_rng(5).standard_normal((6, 1024)).astype(np.float32)
    x *= np.array([1, 0.02, 300, 0.5, 7, 1.7], np.float32)[:, None]
    assert relative_error(x, coded(x, name)).max() <= 1.05 * reference.error(name, "plain")[GAUSSIAN]


@every_searched
def test_more_effort_is_never_much_worse(name: str) -> None:
    """Over rows of several kinds the mean error falls with the effort."""
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.standard_normal((3, 512)), rng.laplace(size=(3, 512)), rng.standard_t(3, (3, 512))])
    x32 = x.astype(np.float32)
    efforts: list[Effort] = ["fast", "normal", "best"]
    fast, normal, best = (relative_error(x32, coded(x32, name, effort=effort)).mean() for effort in efforts)
    assert best <= normal * 1.001
    assert normal <= fast * 1.001


def test_more_bits_are_better() -> None:
    """Within a family the error falls strictly with the bits per weight."""
    x = np.random.default_rng(7).standard_normal((4, 1024)).astype(np.float32)
    for family in (["IQ2_K", "IQ3_K", "IQ4_K", "IQ5_K", "IQ6_K"], ["IQ2_KS", "IQ2_KL", "IQ3_KS", "IQ4_KS", "IQ5_KS"]):
        errors = [relative_error(x, coded(x, name)).mean() for name in family]
        assert errors == sorted(errors, reverse=True)


@every_searched
def test_importance_moves_error_to_where_it_counts_less(name: str) -> None:
    """The weighted error with the importance given is below the weighted error without."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((4, 1024)).astype(np.float32)
    w = (rng.random(1024) ** 4 + 0.01).astype(np.float32)
    assert relative_error(x, coded(x, name, w), w).mean() < relative_error(x, coded(x, name), w).mean()


@pytest.mark.parametrize("name", [*BLOCKS_OF_32, *SUPERBLOCKS, "IQ2_KS", "IQ3_KS", "IQ4_KS", "IQ5_KS"])
def test_every_weight_takes_the_nearest_value_of_its_sub_block(name: str) -> None:
    """No weight would be nearer to the value of another weight of its sub-block: codes and packing agree.

    IQ6_K's values are no integers, and the edges between them are rounded to 1/32 of a step of the int8 scale.
    """
    x = np.random.default_rng(9).standard_normal((4, 1024)).astype(np.float32)
    groups = x.reshape(-1, SUB_BLOCK[name])
    values = coded(x, name).reshape(groups.shape)
    own = np.abs(groups - values)
    nearest = np.abs(groups[:, :, None] - values[:, None, :]).min(axis=2)
    np.testing.assert_allclose(own, nearest, atol=1e-3 if name == "IQ6_K" else 1e-5)


@every_searched
def test_coding_decoded_rows_again_loses_little(name: str) -> None:
    """Decoded rows are representable exactly; coding them again loses far less than the first time."""
    x = np.random.default_rng(10).standard_normal((4, 1024)).astype(np.float32)
    once = coded(x, name)
    assert relative_error(once, coded(once, name, effort="best")).mean() <= 0.25 * relative_error(x, once).mean()


# ---- hostile values ----


@pytest.mark.parametrize("name", FLOATS + SEARCHED)
@pytest.mark.parametrize("effort", ["fast", "normal", "best"])
def test_all_finite_values_become_finite_values(name: str, effort: Effort) -> None:
    """Extremes of fp32, subnormals and any importance: everything decodes to finite numbers, zeros to zeros."""
    x = hostile_rows(512)
    for importance in hostile_importances(512):
        y = coded(x, name, importance, effort)
        assert np.isfinite(y).all()
        assert (y[0] == 0).all()


@every_searched
def test_huge_and_tiny_rows_keep_their_precision_as_far_as_fp16_reaches(reference: Reference, name: str) -> None:
    """Scaling a row by 1e3 changes nothing much; N(0, 1e-4) costs at most half more although d is almost subnormal."""
    x = np.random.default_rng(13).standard_normal((1, 1024)).astype(np.float32)
    plain, large, small = (relative_error(x * f, coded(x * f, name))[0] for f in np.float32([1, 1e3, 1e-4]))
    assert large <= 1.05 * plain
    if name != "Q8_0":  # one scale step is 6e-8, 1e-4 / 127 is 13 of them, and no scale code helps
        assert small <= 1.5 * plain


def test_weights_beyond_the_range_of_fp16_are_clamped() -> None:
    """The largest finite value is written where fp16 ends, with the right sign."""
    x = np.tile(np.float32([1e30, -1e30]), 128)[None]
    for name in ("F16", "IQ4_NL", "IQ3_K", "IQ2_KS"):
        y = coded(x, name)
        assert (np.sign(y) == np.sign(x)).all()
        assert np.abs(y).min() >= 65504 * (1 if name == "F16" else 10)


@every_searched
def test_a_sub_block_without_importance_is_not_free_to_be_garbage(name: str) -> None:
    """All-zero importance says nothing about a sub-block: it is coded about as well as without any importance."""
    x = np.random.default_rng(14).standard_normal((4, 512)).astype(np.float32)
    w = np.ones(512, np.float32)
    w[64:128] = 0
    informed, plain = coded(x, name, w)[:, 64:128], coded(x, name)[:, 64:128]
    assert relative_error(x[:, 64:128], informed).mean() <= 1.2 * relative_error(x[:, 64:128], plain).mean()


@pytest.mark.parametrize("name", FLOATS + SEARCHED)
def test_zero_importance_everywhere_means_none(name: str) -> None:
    """An importance of zeros gives the bytes of no importance."""
    x = np.random.default_rng(15).standard_normal((2, 512)).astype(np.float32)
    np.testing.assert_array_equal(encode(x, name), encode(x, name, np.zeros(512, np.float32)))


@every_searched
def test_a_constant_importance_means_none(name: str) -> None:
    """Only the ratios of the importance count; a power of two does not even change the rounding."""
    x = np.random.default_rng(16).standard_normal((2, 512)).astype(np.float32)
    np.testing.assert_array_equal(encode(x, name), encode(x, name, np.full(512, 2.0**40, np.float32)))


def quantize_raw(name: str, x: Floats, importance: Floats | None, dst: npt.NDArray[np.uint8]) -> None:
    weights = ffi.NULL if importance is None else pointer(importance, "const float *")
    src = pointer(x, "const float *")
    check(lib.iq_quantize_rows, FORMATS[name].id, src, *x.shape, weights, 1, pointer(dst, "void *", writable=True))


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_weights_that_are_not_finite_are_named_and_nothing_is_written(value: float, word: str) -> None:
    """The core's error names row and column; the destination is untouched even for the good rows before."""
    x = np.ones((3, 512), np.float32)
    x[2, 300] = value
    dst = np.full((3, FORMATS["IQ3_K"].row_bytes(512)), 0xAA, np.uint8)
    with pytest.raises(FormatError, match=rf"row 2, column 300 is {word}"):
        quantize_raw("IQ3_K", x, None, dst)
    assert (dst == 0xAA).all()


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-1e-30, "negative")])
def test_wrong_importance_is_named(value: float, word: str) -> None:
    """The core's error names the column of the importance."""
    importance = np.ones(512, np.float32)
    importance[77] = value
    dst = np.zeros((1, FORMATS["IQ4_KS"].row_bytes(512)), np.uint8)
    with pytest.raises(FormatError, match=rf"column 77 .* is {word}"):
        quantize_raw("IQ4_KS", np.ones((1, 512), np.float32), importance, dst)
    assert (dst == 0).all()


def test_wrong_arguments_are_refused() -> None:
    """Part blocks, types that are only read, and unknown efforts are errors, not crashes."""
    x, dst = np.ones(512, np.float32), np.zeros(4096, np.uint8)
    src, out = pointer(x, "const float *"), pointer(dst, "void *", writable=True)
    with pytest.raises(ValueError, match="whole blocks of 256"):
        check(lib.iq_quantize_rows, FORMATS["IQ3_K"].id, src, 1, 288, ffi.NULL, 1, out)
    with pytest.raises(UnsupportedModelError, match="type 12 "):
        check(lib.iq_quantize_rows, FORMATS["Q4_K"].id, src, 1, 512, ffi.NULL, 1, out)
    with pytest.raises(ValueError, match="effort 3"):
        check(lib.iq_quantize_rows, FORMATS["IQ3_K"].id, src, 1, 512, ffi.NULL, 3, out)
    with pytest.raises(ValueError, match="do not fit"):
        check(lib.iq_quantize_rows, FORMATS["IQ3_K"].id, src, 1 << 60, 512, ffi.NULL, 1, out)
    check(lib.iq_quantize_rows, FORMATS["IQ3_K"].id, ffi.NULL, 0, 512, ffi.NULL, 1, ffi.NULL)


# ---- determinism and layout ----


@pytest.mark.parametrize("name", FLOATS + SEARCHED)
def test_rows_do_not_depend_on_their_company_or_on_threads(name: str) -> None:
    """One row alone, all rows, one thread or several: the same bytes."""
    rng = np.random.default_rng(17)
    x = (rng.standard_normal((33, 8192)) * rng.lognormal(size=(33, 1))).astype(np.float32)
    w = rng.random(8192).astype(np.float32)
    rows = encode(x, name, w, "fast", n_threads=1)
    np.testing.assert_array_equal(rows, encode(x, name, w, "fast", n_threads=4))
    np.testing.assert_array_equal(rows[20:21], encode(x[20:21], name, w, "fast"))


@pytest.mark.parametrize("n_blocks", [1, 2, 3, 15, 16, 17, 33])
@every_searched
def test_any_number_of_blocks(name: str, n_blocks: int) -> None:
    """Rows that do not fill the sixteen lanes of the search are coded as well, and nothing beyond them is written."""
    format_ = by_name(name)
    n_cols = n_blocks * format_.block_weights
    x = np.random.default_rng(18).standard_normal((2, n_cols)).astype(np.float32)
    row_bytes = format_.row_bytes(n_cols)
    memory = np.full(2 * row_bytes + 65, 0x5A, np.uint8)
    dst = memory[1 : 1 + 2 * row_bytes]  # unaligned
    quantize_raw(name, x, None, dst)
    assert memory[0] == 0x5A
    assert (memory[1 + 2 * row_bytes :] == 0x5A).all()
    bits = 8 * format_.block_bytes / format_.block_weights
    assert relative_error(x, decode(dst.copy(), name, n_cols)).max() <= 1.9 * 2.0 ** (1 - bits) + 0.01


def digest_of_everything() -> str:
    """A hash of what every encoder makes of hostile and ordinary rows at every effort."""
    digest = hashlib.sha256()
    x = np.concatenate([hostile_rows(768), np.random.default_rng(19).standard_normal((2, 768)).astype(np.float32)])
    efforts: list[Effort] = ["fast", "normal", "best"]
    for name in FLOATS + SEARCHED:
        for importance in hostile_importances(768)[::2]:
            for effort in efforts:
                digest.update(encode(x, name, importance, effort).tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("isa", [isa for isa, runs in built_isas().items() if runs and not isa.startswith("neon_")])
def test_every_instruction_set_makes_the_same_bytes(isa: str) -> None:
    """A process that is told to use another instruction set makes the same bytes from the same rows."""
    program = "from tests.test_quantize_rows import digest_of_everything; print(digest_of_everything())"
    root = Path(__file__).parents[1]
    environment = {**os.environ, "IQRUN_ISA": isa, "PYTHONPATH": str(root)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert digest_of_everything() == run.stdout.strip()


# ---- the vectors that came with the formats ----


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared vectors are not beside this checkout")
def test_the_fixture_is_what_the_shared_vectors_say(reference: Reference) -> None:
    """The copy in tests/data agrees with its source."""
    manifest = json.loads((SHARED / "manifest.json").read_text())
    errors = {name.upper(): entry for name, entry in manifest.items()}
    with np.load(SHARED / "blocks.npz") as file:
        np.testing.assert_array_equal(reference.x, file["x"])
        np.testing.assert_array_equal(reference.importance, file["imatrix"])
    for name in SEARCHED:
        np.testing.assert_array_equal(reference.error(name, "plain"), errors[name]["rel_rmse_plain"])
        np.testing.assert_array_equal(reference.error(name, "importance"), errors[name]["rel_rmse_imat"])
