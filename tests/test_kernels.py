"""The matmul kernels of every instruction set that runs here, against decoded weights in float64."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from iqrun import native
from iqrun.errors import UnsupportedModelError
from iqrun.native import check, ffi, lib, pointer
from tests.emulated import EMULATED

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

ROOT = Path(__file__).resolve().parents[1]
ISAS = [isa for isa, runs in native.built_isas().items() if runs]
FLOAT_TYPES = ("f32", "f16", "bf16")


def _formats() -> dict[str, object]:
    infos = [lib.iq_format_at(i) for i in range(lib.iq_format_count())]
    return {ffi.string(info.name).decode(): info for info in infos}


FORMATS = _formats()


def random_rows(name: str, n_rows: int, n_cols: int, rng: np.random.Generator) -> U8:
    """Rows of random bytes; one exponent bit is cleared so that every half float in them is finite."""
    info = FORMATS[name]
    row_bytes = lib.iq_row_bytes(info.id, n_cols)
    rows = rng.integers(0, 256, (n_rows, row_bytes), dtype=np.uint8)
    rows &= np.uint8(0xFF ^ (0x40 if rng.integers(2) else 0x08))
    scale = np.float32(-0.5).astype({2: np.float16, 4: np.float32}.get(info.row_meta_bytes, np.float32))
    if info.row_meta_bytes:
        rows[:, : info.row_meta_bytes] = np.frombuffer(scale.tobytes(), np.uint8)
    if name in FLOAT_TYPES:  # values of one magnitude, or a single weight would hide all others
        values = rng.standard_normal((n_rows, n_cols)).astype(np.float32)
        as_bytes = {
            "f32": values,
            "f16": values.astype(np.float16),
            "bf16": (values.view(np.uint32) >> 16).astype(np.uint16),
        }
        rows = np.ascontiguousarray(as_bytes[name]).view(np.uint8).reshape(n_rows, row_bytes)
    return rows


def decoded(name: str, rows: U8, n_cols: int) -> F64:
    """The rows by the portable decoder."""
    out = np.empty((len(rows), n_cols), np.float32)
    check(lib.iq_dequantize_rows, FORMATS[name].id, pointer(rows, "void *"), len(rows), n_cols, pointer(out, "float *"))
    return out.astype(np.float64)


def rounding_of_codebook(name: str, rows: U8, n_cols: int) -> F64:
    """Per weight, how far the integer codebook may be from the decoder's: half a scale unit for IQ6_K, else 0."""
    if name != "iq6_k":
        return np.zeros((len(rows), n_cols))
    blocks = rows.reshape(len(rows), n_cols // 256, 212)
    d = blocks[:, :, :2].copy().view(np.float16).astype(np.float64)
    scales = blocks[:, :, 4:20].view(np.int8).astype(np.float64)
    return np.repeat(0.5 * np.abs(d * scales), 16, axis=2).reshape(len(rows), n_cols)


def q8(x: F32) -> F64:
    """What quantize_x makes of x: int8 per 32 columns, times its scale (kernel/quantize_x.inc.h)."""
    blocks = x.reshape(len(x), -1, 32)
    amax = np.abs(blocks).max(axis=2, keepdims=True)
    inverse = np.divide(np.float32(127), amax, out=np.zeros_like(amax), where=amax > 2.0**-100)
    return (np.rint(blocks * inverse).astype(np.float64) * (amax / np.float32(127)).astype(np.float64)).reshape(x.shape)


def matmul(isa: str, name: str, rows: U8, x: F32) -> F32:
    """y[t][r] by the kernels of one instruction set; the output is surrounded by guard values."""
    y = np.full(len(x) * len(rows) + 32, 12345, np.float32)
    check(lib.iq_matmul, native.kernels(isa), FORMATS[name].id, pointer(rows, "void *"), len(rows), x.shape[1],
          pointer(x, "float *"), len(x), pointer(y[16:], "float *", writable=True))  # fmt: skip
    assert np.all(y[:16] == 12345)
    assert np.all(y[-16:] == 12345)
    return y[16:-16].reshape(len(x), len(rows))


def expected_and_bound(name: str, rows: U8, x: F32) -> tuple[F64, F64]:
    """The product in float64 and the error that float32 sums allow.

    A lane adds up two products per superblock, then 16 lanes are added: each addition errs by 2^-24 of a partial sum.
    Partial sums stay below 4 max|w| sum|x|: codes are multiplied with an offset of up to their own range in them.
    """
    n_cols = x.shape[1]
    weights = decoded(name, rows, n_cols)
    inputs = x.astype(np.float64) if name in FLOAT_TYPES else q8(x)
    additions = n_cols / 16 + 16 if name in FLOAT_TYPES else 2 * np.ceil(n_cols / 256) + 8
    magnitude = np.abs(inputs).sum(axis=1)[:, None] * np.abs(weights).max(axis=1)[None, :]
    bound = additions * 2.0**-24 * 4 * magnitude + np.abs(inputs) @ rounding_of_codebook(name, rows, n_cols).T + 1e-30
    return inputs @ weights.T, bound


def assert_product(isa: str, name: str, rows: U8, x: F32) -> None:
    expected, bound = expected_and_bound(name, rows, x)
    excess = np.abs(matmul(isa, name, rows, x) - expected) / bound
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    assert excess.max() <= 1, f"{isa} {name}: token {worst[0]}, row {worst[1]}: {excess.max():.2f} times the bound"


def shapes(name: str) -> Iterator[tuple[int, int, int]]:
    """(rows, columns, tokens), every small number of tokens and odd ends of rows and columns among them."""
    columns = {1: (1, 31, 288), 32: (32, 224, 288, 1056), 256: (256, 1280)}[FORMATS[name].block_weights]
    for n_cols in columns:
        for n_tokens in (*range(1, 10), 16, 33):
            yield 5 if n_tokens % 2 else 2, n_cols, n_tokens
        for n_rows in (1, 16, 33, 70):
            yield n_rows, n_cols, 3
            yield n_rows, n_cols, 13


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", FORMATS)
def test_matmul_equals_decoded_weights_times_activations(name: str, isa: str) -> None:
    """Any rows, columns and tokens: the product of decoded weights and int8 activations, within float32 rounding."""
    rng = np.random.default_rng(len(name) * 1000 + FORMATS[name].id)
    for n_rows, n_cols, n_tokens in shapes(name):
        x = rng.standard_normal((n_tokens, n_cols)).astype(np.float32)
        assert_product(isa, name, random_rows(name, n_rows, n_cols, rng), x)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in FLOAT_TYPES])
def test_extreme_activations_and_codes_do_not_saturate(name: str, isa: str) -> None:
    """Activations of +-127 against all-zero and all-one codes: int16 steps inside the kernels must not overflow."""
    rng = np.random.default_rng(7)
    n_cols = 512
    column = np.arange(n_cols)
    signs = np.where(rng.random(n_cols) < 0.5, 3, -3)
    spike = np.where(column == 300, 1e4, 1e-3)
    x = np.array([column * 0 + 1, column * 0 - 1, np.where(column % 2, 1, -1), signs, spike], np.float32)
    for fill in (0x00, 0xBF, 0xF7):
        rows = random_rows(name, 3, n_cols, rng)
        rows[:, FORMATS[name].row_meta_bytes :] = fill
        for n_tokens in (1, len(x)):
            assert_product(isa, name, rows, x[:n_tokens])


@pytest.mark.parametrize("isa", ISAS)
def test_a_non_finite_activation_spoils_its_own_token_only(isa: str) -> None:
    """NaN or Inf in one token makes that token's results NaN; the others stay exact and nothing crashes."""
    rng = np.random.default_rng(3)
    for n_tokens in (3, 9):
        x = rng.standard_normal((n_tokens, 256)).astype(np.float32)
        x[0, 17], x[1, 200] = np.nan, np.inf
        rows = random_rows("iq4_k", 4, 256, rng)
        y = matmul(isa, "iq4_k", rows, x)
        assert np.isnan(y[:2]).all()
        expected, bound = expected_and_bound("iq4_k", rows, x[2:])
        assert np.all(np.abs(y[2:] - expected) <= bound)


@pytest.mark.parametrize("isa", ISAS)
def test_tiny_and_huge_activations_keep_their_precision(isa: str) -> None:
    """Scales of 1e-25 and 1e+25 change the results by that factor only; below 2^-100 a block counts as zero."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 512)).astype(np.float32)
    rows = random_rows("iq3_k", 3, 512, rng)
    for factor in (1e-25, 1e25):
        assert_product(isa, "iq3_k", rows, (x * np.float32(factor)).astype(np.float32))
    assert not matmul(isa, "iq3_k", rows, np.full((1, 512), 1e-38, np.float32)).any()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["iq2_k", "iq4_ks", "iq5_k", "q4_k", "q8_0", "f16"])
def test_one_token_gives_the_same_alone_and_in_a_batch(name: str, isa: str) -> None:
    """Up to three tokens share a kernel and agree to the last bit; larger batches differ by float32 rounding only."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((40, 768)).astype(np.float32)
    rows = random_rows(name, 19, 768, rng)
    alone = np.concatenate([matmul(isa, name, rows, x[i : i + 1]) for i in range(len(x))])
    assert np.array_equal(matmul(isa, name, rows, x[:3]), alone[:3])
    _, bound = expected_and_bound(name, rows, x)
    assert np.all(np.abs(matmul(isa, name, rows, x) - alone) <= 2 * bound)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", FLOAT_TYPES)
def test_float_weights_give_the_same_bits_for_any_number_of_tokens(name: str, isa: str) -> None:
    """Also where the columns are taken in several parts, the last of them odd: sums run over them in one order."""
    rng = np.random.default_rng(9)
    x = rng.standard_normal((14, 2061)).astype(np.float32)
    rows = random_rows(name, 13, 2061, rng)
    assert_product(isa, name, rows, x)
    whole = matmul(isa, name, rows, x)
    for n_tokens in (1, 2, 3, 4, 5, 9):
        assert np.array_equal(matmul(isa, name, rows, x[:n_tokens]), whole[:n_tokens])


@pytest.mark.parametrize("isa", ISAS)
def test_the_way_rows_are_dealt_does_not_change_results(isa: str) -> None:
    """Any split of the rows gives the same bits: threads may take any number of them."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((11, 512)).astype(np.float32)
    for name in ("iq4_k", "q5_1", "f32"):
        rows = random_rows(name, 37, 512, rng)
        whole = matmul(isa, name, rows, x)
        for at in (1, 15, 16, 30):
            parts = [matmul(isa, name, np.ascontiguousarray(part), x) for part in (rows[:at], rows[at:])]
            assert np.array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("isa", ISAS)
def test_rows_may_start_at_any_address(isa: str) -> None:
    """Rows come from a mapped file: odd addresses give the same bits."""
    rng = np.random.default_rng(8)
    for name in ("iq2_kl", "iq4_kss", "f32", "q8_0"):
        x = rng.standard_normal((6, 256)).astype(np.float32)
        rows = random_rows(name, 5, 256, rng)
        shifted = np.empty(rows.size + 1, np.uint8)
        shifted[1:] = rows.reshape(-1)
        assert np.array_equal(matmul(isa, name, shifted[1:].reshape(rows.shape), x), matmul(isa, name, rows, x))


def test_unknown_instruction_sets_are_refused_with_the_choices() -> None:
    """The error names the wrong word and lists what runs here."""
    with pytest.raises(UnsupportedModelError, match=r'"avx1024" is not built.*portable'):
        native.kernels("avx1024")


def test_the_best_instruction_set_is_the_first_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name the first runnable entry is chosen; IQRUN_ISA overrides it."""
    monkeypatch.delenv("IQRUN_ISA", raising=False)
    native.kernels.cache_clear()
    assert native.isa_name() == ISAS[0]
    monkeypatch.setenv("IQRUN_ISA", "portable")
    native.kernels.cache_clear()
    assert native.isa_name() == "portable"
    native.kernels.cache_clear()


def test_matmul_refuses_unknown_types_and_column_counts() -> None:
    """Wrong arguments are errors with a sentence, never a crash."""
    x = np.zeros((1, 100), np.float32)
    y = np.zeros((1, 1), np.float32)
    rows = np.zeros(1000, np.uint8)
    for type_id, n_cols, error in ((9999, 100, UnsupportedModelError), (FORMATS["iq4_k"].id, 100, ValueError)):
        with pytest.raises(error):
            check(lib.iq_matmul, native.kernels("portable"), type_id, pointer(rows, "void *"), 1, n_cols,
                  pointer(x, "float *"), 1, pointer(y, "float *"))  # fmt: skip


def test_memory_reads_are_timed_over_all_threads() -> None:
    """A read of some megabytes takes a plausible time; senseless arguments are refused."""
    data = np.ones(1 << 22, np.uint8)
    seconds = ffi.new("double *")
    for n_threads in (1, 2):
        check(lib.iq_measure_read, pointer(data, "void *"), data.size, n_threads, 3, seconds)
        assert 1e-6 < seconds[0] < 10
    with pytest.raises(ValueError, match="64 bytes"):
        check(lib.iq_measure_read, pointer(data, "void *"), 3, 1, 1, seconds)


@pytest.mark.skipif(EMULATED, reason="the C compiler is one for the machine that emulates")
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_native_kernel_test_passes(tmp_path: Path) -> None:
    """The C test: -128 activations, rows ending at an unreadable page, guarded outputs, all tables."""
    done = subprocess.run(
        ["bash", str(ROOT / "tests/c/run.sh"), "quick", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "portable: ok" in done.stdout
