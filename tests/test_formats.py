"""Storage types: sizes, portable decoders, and the Python view of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from iqrun import formats
from iqrun.errors import FormatError, UnsupportedModelError
from iqrun.formats import FORMATS, by_id, by_name, decode, encode, known_names
from iqrun.native import check, ffi, lib
from tests import format_reference

SHARED = Path(__file__).parents[1].parent / "shared" / "golden"

# name: (id, file_type, block_weights, block_bytes, row_meta_bytes), typed here a second time from the format's papers
SIZES = {
    "F32": (0, 0, 1, 4, 0),
    "F16": (1, 1, 1, 2, 0),
    "BF16": (30, 32, 1, 2, 0),
    "Q4_0": (2, 2, 32, 18, 0),
    "Q4_1": (3, 3, 32, 20, 0),
    "Q5_0": (6, 8, 32, 22, 0),
    "Q5_1": (7, 9, 32, 24, 0),
    "Q6_0": (133, 135, 32, 26, 0),
    "Q8_0": (8, 7, 32, 34, 0),
    "Q2_K": (10, 10, 256, 84, 0),
    "Q3_K": (11, 12, 256, 110, 0),
    "Q4_K": (12, 15, 256, 144, 0),
    "Q5_K": (13, 17, 256, 176, 0),
    "Q6_K": (14, 18, 256, 210, 0),
    "IQ4_NL": (20, 25, 32, 18, 0),
    "IQ4_XS": (23, 30, 256, 136, 0),
    "IQ2_KS": (145, 147, 256, 70, 2),
    "IQ2_K": (137, 138, 256, 76, 0),
    "IQ2_KL": (157, 155, 256, 86, 2),
    "IQ3_KS": (156, 154, 256, 102, 2),
    "IQ3_K": (138, 139, 256, 110, 0),
    "IQ4_KSS": (146, 148, 256, 128, 4),
    "IQ4_KS": (144, 145, 256, 136, 4),
    "IQ4_K": (139, 140, 256, 144, 0),
    "IQ5_KS": (152, 150, 256, 168, 4),
    "IQ5_K": (140, 141, 256, 176, 0),
    "IQ6_K": (141, 142, 256, 212, 0),
}
READ_ONLY = {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "IQ4_XS"}

every_type = pytest.mark.parametrize("name", list(FORMATS))


@pytest.fixture(scope="module")
def vectors() -> dict[str, npt.NDArray[np.generic]]:
    """Rows 0 and 4 (plain), 2 and 3 (imat) of the reference quantizer's vectors, first 256 columns of 1024."""
    with np.load(Path(__file__).parent / "data" / "format_vectors.npz") as file:
        return dict(file)


def random_rows(name: str, n_rows: int, n_cols: int, seed: int) -> npt.NDArray[np.uint8]:
    """Random bytes, but finite fp16 and fp32 scales."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (n_rows, FORMATS[name].row_bytes(n_cols)), dtype=np.uint8)
    for at, dtype in scale_fields(name, n_cols):
        size = np.dtype(dtype).itemsize
        rows[:, at : at + size] = rng.normal(size=(n_rows, 1)).astype(dtype).view(np.uint8)
    return rows


def scale_fields(name: str, n_cols: int) -> Iterator[tuple[int, str]]:
    """Where a row has floating-point fields."""
    format_ = FORMATS[name]
    in_block = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2)}
    in_block |= {"Q6_K": (208,)} | dict.fromkeys(["F32", "F16", "BF16"], ())
    if format_.row_meta_bytes:
        yield 0, "<f2" if format_.row_meta_bytes == 2 else "<f4"
        return
    for block in range(n_cols // format_.block_weights):
        for at in in_block.get(name, (0,)):
            yield block * format_.block_bytes + at, "<f2"


# ---- the table ------------------------------------------------------------------------------------------------------


def test_table_is_complete_and_right() -> None:
    """Ids, file types and sizes are those of the files in the wild; what can be written is stated."""
    actual = {f.name: (f.id, f.file_type, f.block_weights, f.block_bytes, f.row_meta_bytes) for f in FORMATS.values()}
    assert actual == SIZES
    assert {f.name for f in FORMATS.values() if not f.can_encode} == READ_ONLY
    assert all(name == f.name for name, f in FORMATS.items())


def test_table_agrees_with_gguf_package() -> None:
    """Ids, sizes and names of mainline types are those of the `gguf` package."""
    import gguf

    for type_ in gguf.GGMLQuantizationType:
        if type_.name in FORMATS:
            format_ = by_id(type_.value)
            assert (format_.name, format_.block_weights, format_.block_bytes) == (
                type_.name,
                *gguf.GGML_QUANT_SIZES[type_],
            )
        elif type_.value in known_names():  # the package may know newer types
            assert known_names()[type_.value] == type_.name
    assert FORMATS["Q4_K"].file_type == gguf.LlamaFileType.MOSTLY_Q4_K_M
    assert FORMATS["IQ4_XS"].file_type == gguf.LlamaFileType.MOSTLY_IQ4_XS


@every_type
def test_row_bytes_counts_row_meta_once(name: str) -> None:
    """row_meta_bytes stand once per row, whatever its length; Python and C agree."""
    format_ = FORMATS[name]
    for n_blocks in (1, 2, 3, 40):
        n_cols = n_blocks * format_.block_weights
        expected = format_.row_meta_bytes + n_blocks * format_.block_bytes
        assert format_.row_bytes(n_cols) == expected
        assert lib.iq_row_bytes(format_.id, n_cols) == expected


@every_type
def test_row_bytes_refuses_what_is_no_row(name: str) -> None:
    """Zero columns, a part of a block and sizes beyond 64 bits are refused in Python and are 0 in C."""
    format_ = FORMATS[name]
    whole = format_.block_weights
    for n_cols in [0] if whole == 1 else [0, 1, whole - 1, whole + 1]:
        assert lib.iq_row_bytes(format_.id, n_cols) == 0
        with pytest.raises(FormatError):
            format_.row_bytes(n_cols)
    with pytest.raises(FormatError):
        format_.row_bytes(-256)


def test_row_bytes_does_not_wrap_around() -> None:
    """A row whose bytes exceed 64 bits gives 0, one that just fits its exact size (F32: 4 bytes per weight)."""
    assert lib.iq_row_bytes(0, 2**62) == 0
    assert lib.iq_row_bytes(0, 2**62 - 1) == 2**64 - 4
    assert lib.iq_row_bytes(12345, 256) == 0
    with pytest.raises(FormatError, match="too long for any file"):
        FORMATS["F32"].row_bytes(2**62)


def test_bits_per_weight() -> None:
    """bpw is that of the blocks."""
    assert FORMATS["IQ2_KS"].bpw == 2.1875
    assert FORMATS["IQ6_K"].bpw == 6.625
    assert FORMATS["F32"].bpw == 32


def test_lookup_by_name_ignores_case_and_suggests() -> None:
    """Lower case is found; a typo names the nearest type and all others; a known but unsupported type is called so."""
    assert by_name("iq3_k") is by_name("IQ3_K") is FORMATS["IQ3_K"]
    with pytest.raises(
        FormatError, match=r"'IQ3K' is not a known type: did you mean IQ3_K\? The types are F32, .*IQ6_K"
    ):
        by_name("IQ3K")
    with pytest.raises(FormatError, match="'iq2_xxs' is not supported"):
        by_name("iq2_xxs")


def test_lookup_by_id_names_unsupported_types() -> None:
    """An unsupported id is named; an unknown one is reported as such."""
    assert by_id(138) is FORMATS["IQ3_K"]
    with pytest.raises(FormatError, match=r"type IQ2_XXS \(16\) is not supported"):
        by_id(16)
    with pytest.raises(FormatError, match=r"type IQ4_K_R4 \(339\) is not supported"):
        by_id(339)
    for unknown in (999, -1, 2**31, 2**64):
        with pytest.raises(FormatError, match=f"{unknown} is not a known ggml type id"):
            by_id(unknown)
    assert not known_names().keys() & {f.id for f in FORMATS.values()}


def test_format_at_ends_with_null() -> None:
    """The C table is walked until NULL, and an unknown id has no row."""
    assert lib.iq_format_at(lib.iq_format_count()) == ffi.NULL
    assert lib.iq_format_find(-1) == ffi.NULL


# ---- decoding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["plain", "imat"])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "F32"])
def test_decode_agrees_with_reference_bit_for_bit(
    name: str, variant: str, vectors: dict[str, npt.NDArray[np.generic]]
) -> None:
    """The reference quantizer's bytes decode to the reference decoder's floats, every bit of them."""
    decoded = decode(vectors[f"{name}.{variant}.q"], name, 256)
    expected = vectors[f"{name}.{variant}.d"]
    np.testing.assert_array_equal(expected.view(np.uint32), decoded.view(np.uint32))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full vectors are not part of the repository")
def test_decode_agrees_with_all_reference_vectors() -> None:
    """The same for every row and column of the full vectors, and their manifest's ids and sizes."""
    manifest = json.loads((SHARED / "manifest.json").read_text())
    seen = 0
    with np.load(SHARED / "blocks.npz") as file:
        for reference_name, entry in manifest.items():
            if (format_ := FORMATS.get(reference_name.upper())) is None:
                continue
            assert (format_.id, format_.row_bytes(1024)) == (entry["type_id"], entry["row_bytes_1024"])
            for variant in ("plain", "imat"):
                decoded = decode(file[f"{reference_name}.{variant}.q"], format_, 1024)
                expected = file[f"{reference_name}.{variant}.d"]
                np.testing.assert_array_equal(expected.view(np.uint32), decoded.view(np.uint32), format_.name)
            seen += 1
    assert seen == len(FORMATS) - 1  # all but F32


@pytest.mark.parametrize("name", list(format_reference.DECODERS))
def test_decode_random_bytes_agrees_with_second_implementation(name: str) -> None:
    """Any pattern of codes and scales decodes as the layout's per-weight formulas say."""
    format_ = FORMATS[name]
    for seed in range(20):
        rows = random_rows(name, 4, 768, seed)
        expected = [format_reference.decode_row(name, r, format_.row_meta_bytes, format_.block_bytes) for r in rows]
        np.testing.assert_array_equal(np.stack(expected), decode(rows, name, 768))


def mainline_types() -> list[str]:
    return ["BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]


@pytest.mark.parametrize("name", mainline_types())
def test_decode_random_bytes_agrees_with_gguf_package(name: str) -> None:
    """Any pattern of codes and scales of a mainline type decodes as the `gguf` package does."""
    import gguf

    rows = random_rows(name, 40, 1024, seed=7)
    expected = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[name])
    np.testing.assert_array_equal(expected, decode(rows, name, 1024))


@every_type
@pytest.mark.parametrize("fill", [0x00, 0xFF, 0x80, 0x7F, "random"])
def test_decode_stays_inside_its_output(name: str, fill: int | str) -> None:
    """Hostile bytes write exactly n_rows * n_cols floats: guards before and after are untouched."""
    format_ = FORMATS[name]
    n_rows, n_cols = 3, 2 * max(format_.block_weights, 32)
    src = np.random.default_rng(3).integers(0, 256, n_rows * format_.row_bytes(n_cols) + 1, dtype=np.uint8)
    if isinstance(fill, int):
        src[:] = fill
    out = np.full(n_rows * n_cols + 32, 12345.0, np.float32)
    unaligned = ffi.cast("uint8_t *", ffi.from_buffer(src)) + 1
    check(lib.iq_dequantize_rows, format_.id, unaligned, n_rows, n_cols, ffi.cast("float *", ffi.from_buffer(out)) + 16)
    assert (out[:16] == 12345).all()
    assert (out[-16:] == 12345).all()
    expected = decode(src[1:], name, n_cols).reshape(-1)
    np.testing.assert_array_equal(expected.view(np.uint32), out[16:-16].view(np.uint32))


def test_decode_is_independent_of_threads() -> None:
    """One thread or many, the rows come out alike, also when they do not divide evenly."""
    rows = random_rows("IQ3_KS", 1111, 512, seed=2)
    expected = decode(rows, "IQ3_KS", 512, n_threads=1)
    for n_threads in (2, 7, None):
        np.testing.assert_array_equal(expected, decode(rows, "IQ3_KS", 512, n_threads=n_threads))


def test_decode_accepts_flat_bytes_and_read_only_views() -> None:
    """A run of whole rows in one dimension, read-only and unaligned, as a memory map gives it."""
    rows = random_rows("IQ4_KS", 5, 256, seed=1)
    flat = np.frombuffer(b"x" + rows.tobytes(), np.uint8)[1:]
    np.testing.assert_array_equal(decode(rows, "IQ4_KS", 256), decode(flat, 144, 256))
    assert decode(rows[:0], "IQ4_KS", 256).shape == (0, 256)


@pytest.mark.parametrize(
    ("rows", "n_cols", "message"),
    [
        (np.zeros((2, 139), np.uint8), 256, "140 bytes each"),
        (np.zeros(281, np.uint8), 256, "140 bytes each"),
        (np.zeros((2, 140), np.uint8), 512, "276 bytes each"),
        (np.zeros((1, 2, 140), np.uint8), 256, "140 bytes each"),
        (np.zeros((2, 140), np.int8), 256, "must be uint8, not int8"),
        (np.zeros((2, 280), np.uint8)[:, ::2], 256, "C-contiguous"),
        (np.zeros((2, 140), np.uint8), 255, "whole blocks of 256"),
        (np.zeros((2, 140), np.uint8), 0, "at least one column"),
        (b"bytes", 256, "numpy array, not bytes"),
    ],
)
def test_decode_refuses_wrong_input(rows: npt.NDArray[np.uint8], n_cols: int, message: str) -> None:
    """Wrong byte counts, dtypes and layouts are refused, with the size that would be right."""
    with pytest.raises(FormatError, match=message):
        decode(rows, "IQ4_KS", n_cols)


def test_native_decode_refuses_misuse() -> None:
    """The C entry itself checks type, shape, overflow and null pointers, and names the fault."""
    out = ffi.new("float[256]")
    src = ffi.new("uint8_t[256]")
    with pytest.raises(UnsupportedModelError, match="type 16"):
        check(lib.iq_dequantize_rows, 16, src, 1, 256, out)
    with pytest.raises(ValueError, match="a row of 255 columns cannot be iq4_ks"):
        check(lib.iq_dequantize_rows, 144, src, 1, 255, out)
    for n_rows, n_cols in ((2**63, 256), (2**55, 256), (1, 2**62), (2**32, 2**31)):
        with pytest.raises(ValueError, match="do not fit into memory"):
            check(lib.iq_dequantize_rows, 144, src, n_rows, n_cols, out)
    with pytest.raises(ValueError, match="needs a source and a destination"):
        check(lib.iq_dequantize_rows, 144, ffi.NULL, 1, 256, out)
    with pytest.raises(ValueError, match="needs a source and a destination"):
        check(lib.iq_dequantize_rows, 144, src, 1, 256, ffi.NULL)
    check(lib.iq_dequantize_rows, 144, ffi.NULL, 0, 256, ffi.NULL)


# ---- encoding: the Python side; what the bytes are worth is tested with the encoders --------------------------------


def test_encode_is_independent_of_threads() -> None:
    """The bytes do not depend on how rows are dealt to threads."""
    x = np.random.default_rng(0).normal(size=(700, 512)).astype(np.float32)
    importance = np.random.default_rng(1).random(512, dtype=np.float32)
    expected = encode(x, "Q4_0", importance, n_threads=1)
    for n_threads in (2, 5, None):
        np.testing.assert_array_equal(expected, encode(x, "Q4_0", importance, n_threads=n_threads))


@every_type
def test_encode_writes_exactly_what_the_table_says(name: str) -> None:
    """Types that can be encoded come back close to what went in; for the others the core refuses, too."""
    x = np.random.default_rng(5).normal(size=(3, 512)).astype(np.float32)
    if FORMATS[name].can_encode:
        error = decode(encode(x, name, effort="fast"), name, 512) - x
        assert np.sqrt(np.mean(error**2) / np.mean(x**2)) < 2.0 ** (1.5 - min(FORMATS[name].bpw, 8))
        return
    out = ffi.new("uint8_t[]", 3 * FORMATS[name].row_bytes(512))
    src = ffi.cast("float *", ffi.from_buffer(x))
    with pytest.raises(UnsupportedModelError):
        check(lib.iq_quantize_rows, FORMATS[name].id, src, 3, 512, ffi.NULL, lib.IQ_EFFORT_FAST, out)


def test_encode_shapes() -> None:
    """A single row may be one-dimensional; the result always has rows; no rows give no bytes."""
    x = np.linspace(-1, 1, 256, dtype=np.float32)
    assert encode(x, "IQ4_KS").shape == (1, 140)
    np.testing.assert_array_equal(encode(x, "IQ4_KS"), encode(x.reshape(1, -1), FORMATS["IQ4_KS"]))
    assert encode(np.empty((0, 256), np.float32), "IQ4_KS").shape == (0, 140)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["IQ4_KS", "Q8_0", "F16"])
def test_encode_names_row_and_column_of_a_non_finite_weight(name: str, bad: float) -> None:
    """A NaN or infinity is refused with its place in the whole tensor, however rows are dealt to threads."""
    x = np.zeros((900, 512), np.float32)
    x[777, 300] = x[800, 5] = bad
    with pytest.raises(FormatError, match=rf"row 777, column 300 is {bad}"):
        encode(x, name, effort="fast", n_threads=2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_encode_names_column_of_a_bad_importance(bad: float) -> None:
    """A NaN, infinite or negative importance is refused with its column."""
    importance = np.ones(256, np.float32)
    importance[77] = bad
    with pytest.raises(FormatError, match=f"importance of column 77 is {bad}"):
        encode(np.zeros((2, 256), np.float32), "IQ4_KS", importance)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 256)), r"must be float32, not float64: call .astype\(numpy.float32\)"),
        (np.zeros((2, 256), ">f4"), "must be float32"),
        (np.zeros((2, 512), np.float32)[:, ::2], "C-contiguous"),
        (np.frombuffer(b"x" * 1025, np.uint8)[1:].view(np.float32), "aligned"),
        (np.zeros((2, 2, 256), np.float32), "shape"),
        (np.float32(1), "numpy array"),
        (np.zeros((2, 200), np.float32), "whole blocks of 256 weights, which a row of 200 does not fill: use F16"),
        (np.zeros((2, 320), np.float32), "use a type with blocks of 32"),
        (np.zeros((2, 0), np.float32), "at least one column"),
    ],
)
def test_encode_refuses_wrong_input(x: npt.NDArray[np.float32], message: str) -> None:
    """Wrong dtypes, shapes and layouts are refused, with what to do."""
    with pytest.raises(FormatError, match=message):
        encode(x, "IQ4_KS")


def test_encode_refuses_wrong_options() -> None:
    """Read-only types, unknown efforts, thread counts below one and importances of another length are refused."""
    x = np.zeros((2, 256), np.float32)
    with pytest.raises(FormatError, match=r"reads Q4_K but does not write it: choose one of F32, .*IQ6_K"):
        encode(x, "Q4_K")
    with pytest.raises(FormatError, match="effort 'hard' is none of fast, normal, best"):
        encode(x, "IQ4_KS", effort="hard")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="n_threads is 0"):
        encode(x, "IQ4_KS", n_threads=0)
    with pytest.raises(FormatError, match="one value for each of the 256 columns"):
        encode(x, "IQ4_KS", np.ones(255, np.float32))


def test_first_failing_range_wins() -> None:
    """Of several failing tasks the one with the lowest rows is reported, and work returns after all have stopped."""

    def fail(first: int, last: int) -> None:
        raise FormatError(f"rows {first}..{last}")

    with pytest.raises(FormatError, match=r"rows 0\.\."):
        formats._for_row_ranges(fail, 1000, 1024, 4)


# ---- the string scan of the file reader -----------------------------------------------------------------------------


def scan(data: bytes, offset: int, count: int, size: int | None = None) -> list[int]:
    offsets = ffi.new("uint64_t[]", [77] * (min(count, 1000) + 1))
    try:
        check(lib.iq_scan_strings, ffi.from_buffer(data), len(data) if size is None else size, offset, count, offsets)
    except Exception:
        assert list(offsets) == [77] * len(offsets), "a failed scan must leave its output alone"
        raise
    return list(offsets)


def strings(*lengths: int) -> bytes:
    return b"".join(length.to_bytes(8, "little") + bytes(length) for length in lengths)


def test_scan_strings_finds_every_offset() -> None:
    """Offsets stand at the length fields, the last one at the end; the start may be unaligned; none is fine."""
    data = b"xyz" + strings(0, 5, 1, 0) + b"rest"
    assert scan(data, 3, 4) == [3, 11, 24, 33, 41]
    assert scan(data, 3, 0) == [3]
    assert scan(data, len(data), 0) == [len(data)]


@pytest.mark.parametrize("length", [6, 2**32, 2**63, 2**64 - 9, 2**64 - 8, 2**64 - 1])
def test_scan_strings_refuses_lengths_past_the_end(length: int) -> None:
    """A length that runs past the end, or wraps around 64 bits, is named by its string's index."""
    data = strings(5) + length.to_bytes(8, "little") + bytes(5)
    with pytest.raises(FormatError, match="string 1 of 2, at byte 13, runs past the end"):
        scan(data, 0, 2)


def test_scan_strings_refuses_impossible_counts_and_offsets() -> None:
    """More strings than bytes, an end inside a length field and a start past the end are format errors."""
    data = strings(2, 2)
    with pytest.raises(FormatError, match=f"string 2 of {2**64 - 1}"):
        scan(data, 0, 2**64 - 1)
    for cut in range(len(data)):
        with pytest.raises(FormatError):
            scan(data, 0, 2, size=cut)
    for offset in (len(data) + 1, 2**64 - 1):
        with pytest.raises(FormatError, match="past the end"):
            scan(data, offset, 1)
    with pytest.raises(ValueError, match="needs the file's bytes"):
        check(lib.iq_scan_strings, ffi.NULL, 0, 0, 0, ffi.new("uint64_t[1]"))
