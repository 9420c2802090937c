"""iqrun.gguf.reader: what a valid file gives, and that nothing in a damaged one is believed."""

from __future__ import annotations

import gc
import os
import struct
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iqrun.errors import ClosedError, GGUFError
from iqrun.formats import FORMATS
from iqrun.gguf import GGUFFile, StringArray, keys
from iqrun.gguf.tensor_type import find
from tests.emulated import n_random
from tests.gguf_builder import (
    ARRAY,
    BOOL,
    F16,
    F32,
    FLOAT32,
    FLOAT64,
    INT8,
    INT32,
    INT64,
    STRING,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    RawGGUF,
    kv,
    kv_array,
    kv_raw,
    string,
    tensor_info,
    tiny_llama,
)

SHARED = Path(__file__).parents[1].parent / "shared"


def refused(tmp_path: Path, raw: RawGGUF | bytes, match: str) -> GGUFError:
    """Opens a bad file; it must be refused with a message that matches and names the path."""
    path = tmp_path / "bad.gguf"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    with pytest.raises(GGUFError, match=match) as caught:
        GGUFFile(path)
    assert str(path) in str(caught.value)
    return caught.value


def opened(tmp_path: Path, raw: RawGGUF) -> GGUFFile:
    return GGUFFile(raw.write(tmp_path / "good.gguf"))


# ---- what a valid file gives ------------------------------------------------------------------------------------


def test_reader_agrees_with_the_gguf_package(tmp_path: Path) -> None:
    """Keys, values, shapes and data are those that the reference reader finds."""
    path = tiny_llama(tmp_path / "m.gguf", weight_type="F16")
    reference = gguf.GGUFReader(path)
    with GGUFFile(path) as file:
        fields = {k: f for k, f in reference.fields.items() if not k.startswith("GGUF.")}
        assert list(fields) == list(file.metadata)
        for key, field in fields.items():
            value = file.metadata[key]
            assert field.contents() == (list(value) if isinstance(value, (StringArray, np.ndarray)) else value)
        assert [t.name for t in reference.tensors] == list(file.tensors)
        for tensor in reference.tensors:
            info = file.tensors[tensor.name]
            assert (tuple(tensor.shape), tensor.n_bytes, tensor.data_offset) == (info.shape, info.n_bytes, info.offset)
            assert tensor.data.tobytes() == file.tensor_bytes(tensor.name).tobytes()


def test_metadata_types_survive_reading(tmp_path: Path) -> None:
    """Every value type reads as the Python value that was stored."""
    values: dict[str, tuple[int, object]] = {
        "u8": (UINT8, 255),
        "i8": (INT8, -128),
        "u16": (UINT16, 65535),
        "i32": (INT32, -(2**31)),
        "u64": (UINT64, 2**64 - 1),
        "i64": (INT64, -(2**63)),
        "f32": (FLOAT32, 0.5),
        "f64": (FLOAT64, 1e300),
        "yes": (BOOL, True),
        "text": (STRING, "Grüße"),
    }
    raw = RawGGUF(kvs=[kv(key, *pair) for key, pair in values.items()])
    with opened(tmp_path, raw) as file:
        assert {key: pair[1] for key, pair in values.items()} == dict(file.metadata)
        assert [type(pair[1]) for pair in values.values()] == [type(value) for value in file.metadata.values()]


@pytest.mark.parametrize("padding", range(8))
def test_numeric_arrays_are_aligned_and_read_only(tmp_path: Path, padding: int) -> None:
    """Wherever an array stands in the file, C code may load its elements, and nobody can write to it."""
    raw = RawGGUF(
        kvs=[kv("p" * (padding + 1), UINT8, 0), kv_array("a", INT64, [1, -2, 3]), kv_array("b", BOOL, [1, 0])]
    )
    with opened(tmp_path, raw) as file:
        array = file.metadata.get_array("a", "int")
        assert array.tolist() == [1, -2, 3]
        assert array.flags.aligned and not array.flags.writeable
        assert file.metadata.get_array("b", "bool").tolist() == [True, False]


def test_string_array_is_a_lazy_sequence(tmp_path: Path) -> None:
    """Strings index, slice and iterate like a list; bytes that are not UTF-8 are kept in `raw`."""
    words: list[object] = ["a", "", "Grüße", b"\xff\xfe"]
    with opened(tmp_path, RawGGUF(kvs=[kv_array("words", STRING, words), kv_array("none", STRING, [])])) as file:
        array = file.metadata.get_array("words", "str")
        assert ["a", "", "Grüße", "��"] == list(array) == array[:] == [array[i] for i in range(4)]
        assert array[-2] == "Grüße"
        assert array.raw(3) == b"\xff\xfe"
        assert [b"a", b"", "Grüße".encode(), b"\xff\xfe"] == list(array.iter_raw())
        with pytest.raises(IndexError):
            array.raw(4)
        assert list(file.metadata.get_array("none", "str")) == []


def test_typed_getters_name_key_and_types(tmp_path: Path) -> None:
    """A getter gives the value, its default, or an error that names the key, what is there and what is wanted."""
    kvs = [kv("n", UINT16, 7), kv("neg", INT32, -1), kv("x", FLOAT32, 0.5), kv("s", STRING, "v"), kv("b", BOOL, False)]
    with opened(tmp_path, RawGGUF(kvs=[*kvs, kv_array("a", INT32, [1])])) as file:
        data = file.metadata
        assert (
            data.get_uint("n"),
            data.get_float("n"),
            data.get_float("x"),
            data.get_str("s"),
            data.get_bool("b"),
        ) == (7, 7.0, 0.5, "v", False)
        assert (data.get_uint("absent", 3), data.get_str("absent", None)) == (3, None)
        for call, match in [
            (lambda: data.get_uint("absent"), "'absent' is missing"),
            (lambda: data.get_uint("neg"), "'neg' is -1"),
            (lambda: data.get_uint("s", 3), "'s' is a string, but must be an integer"),
            (lambda: data.get_uint("b"), "'b' is a bool, but must be an integer"),
            (lambda: data.get_bool("n"), "'n' is a uint16, but must be a bool"),
            (lambda: data.get_str("a"), "'a' is an array of int32, but must be a string"),
            (lambda: data.get_float("s"), "'s' is a string, but must be a number"),
        ]:
            with pytest.raises(GGUFError, match=match) as caught:
                call()
            assert caught.value.key is not None


def test_tensor_rows_have_row_bytes(tmp_path: Path) -> None:
    """`tensor_rows` is the data row by row, `tensor_bytes` all of it, both read-only views of the map."""
    data = np.arange(12, dtype="<f4")
    raw = RawGGUF()
    raw.add_tensor("t", (4, 3), F32, data.tobytes())
    with opened(tmp_path, raw) as file:
        assert data.reshape(3, 4).tolist() == file.tensor_rows("t").view("<f4").tolist()
        assert not file.tensor_bytes("t").flags.writeable
        with pytest.raises(GGUFError, match="no tensor 'u'"):
            file.tensor_bytes("u")


def test_three_and_four_dimensions_count_as_rows(tmp_path: Path) -> None:
    """Expert tensors: n_rows is the product of all dimensions but the first."""
    raw = RawGGUF()
    raw.add_tensor("t", (4, 3, 2, 5), F16, bytes(4 * 30 * 2))
    with opened(tmp_path, raw) as file:
        info = file.tensors["t"]
        assert (info.n_cols, info.n_rows, info.row_bytes, info.n_bytes, info.n_weights) == (4, 30, 8, 240, 120)


def test_version_2_and_other_alignments_are_read(tmp_path: Path) -> None:
    """Version 2 is the same layout; tensors begin at multiples of the file's own alignment."""
    raw = RawGGUF(version=2, kvs=[kv("general.alignment", UINT32, 256)], alignment=256)
    raw.add_tensor("a", (1,), F32, b"aaaa")
    raw.add_tensor("b", (1,), F32, b"bbbb")
    with opened(tmp_path, raw) as file:
        assert (file.version, file.alignment) == (2, 256)
        assert file.tensor_bytes("b").tobytes() == b"bbbb"
        assert file.tensors["b"].offset % 256 == 0


def test_what_real_files_do_is_tolerated(tmp_path: Path) -> None:
    """Tensors in any order, gaps between them, no padding after the last, trailing bytes."""
    raw = RawGGUF(infos=[tensor_info("b", (1,), F32, 128), tensor_info("a", (1,), F32, 0)])
    raw.data = b"aaaa" + bytes(124) + b"bbbb"
    with opened(tmp_path, raw) as file:
        assert file.tensor_bytes("a").tobytes() == b"aaaa"
        assert file.tensor_bytes("b").tobytes() == b"bbbb"
    raw.data += b"more"
    opened(tmp_path, raw).close()


def test_unicode_and_byte_paths_open(tmp_path: Path) -> None:
    """A path may be str, Path or bytes, and hold any character."""
    path = RawGGUF().write(tmp_path / "größe x.gguf")
    for form in (path, str(path), os.fsencode(path)):
        with GGUFFile(form) as file:  # type: ignore[arg-type]
            assert str(path) == file.path


# ---- closing --------------------------------------------------------------------------------------------------


def test_closed_file_raises_and_arrays_stay_valid(tmp_path: Path) -> None:
    """After close every access raises ClosedError, closing again is fine, and arrays taken before still read."""
    file = GGUFFile(tiny_llama(tmp_path / "m.gguf"))
    array, tokens = file.tensor_bytes("token_embd.weight"), file.metadata.get_array(keys.TOKENS, "str")
    before = array.tobytes()
    file.close()
    file.close()
    assert before == array.tobytes()
    assert tokens[0] == "<unk>"
    for access in (lambda: file.metadata, lambda: file.tensors, lambda: file.path, lambda: file.tensor_bytes("x")):
        with pytest.raises(ClosedError):
            access()
    with pytest.raises(ClosedError), file:
        pass
    assert "closed" in repr(file)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_map_is_freed_with_its_last_array(tmp_path: Path) -> None:
    """The memory map goes at close, or when the last array that was handed out goes."""
    path = tiny_llama(tmp_path / "m.gguf")

    def mapped() -> bool:
        gc.collect()
        return str(path) in Path("/proc/self/maps").read_text()

    with GGUFFile(path) as file:
        assert mapped()
        array = file.tensor_bytes("output.weight")
    assert mapped()
    del array
    assert not mapped()
    with GGUFFile(path):
        pass
    assert not mapped()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_that_nobody_closes_is_closed_when_it_is_collected(tmp_path: Path) -> None:
    """Descriptors of forgotten files do not pile up."""
    path = tiny_llama(tmp_path / "m.gguf")

    def count() -> int:
        gc.collect()
        return len([*Path("/proc/self/fd").iterdir()])

    before = count()
    files = [GGUFFile(path) for _ in range(20)]
    assert count() > before
    del files
    assert count() == before


# ---- damaged and hostile files ------------------------------------------------------------------------------------


def test_s1_magic_version_and_byte_order(tmp_path: Path) -> None:
    """S1: a wrong magic, an unknown or obsolete version and swapped bytes each get their own sentence."""
    refused(tmp_path, RawGGUF(magic=b"GGML"), "not a GGUF file: it begins with b'GGML'")
    refused(tmp_path, RawGGUF(version=1), "version 1 is obsolete")
    for version in (0, 4, 2**31):
        refused(tmp_path, RawGGUF(version=version), f"version {version} is unknown")
    swapped = b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64)
    refused(tmp_path, swapped, "big-endian")


def test_s1_not_a_regular_file(tmp_path: Path) -> None:
    """S1: an empty or tiny file, a folder, a FIFO (without waiting for a writer), a device and a missing file."""
    refused(tmp_path, b"", "only 0 bytes")
    refused(tmp_path, b"GGUF" + bytes(19), "only 23 bytes")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null"), Path("/dev/zero")):
        with pytest.raises(GGUFError, match="not a regular file"):
            GGUFFile(path)
    with pytest.raises(GGUFError, match="cannot open it: No such file"):
        GGUFFile(tmp_path / "absent")
    with pytest.raises(GGUFError, match="cannot open it"):
        GGUFFile("nul\0byte")


def test_s2_counts_beyond_the_file(tmp_path: Path) -> None:
    """S2: counts of keys and tensors that the remaining bytes cannot hold are refused before anything is made."""
    for count in (1, 2**20, 2**40, 2**63, 2**64 - 1):
        refused(tmp_path, RawGGUF(n_kv=count), f"claims {count} metadata keys")
        refused(tmp_path, RawGGUF(n_tensors=count), f"claims {count} tensors")


def test_s3_string_lengths(tmp_path: Path) -> None:
    """S3: keys, values and tensor names whose length lies, is zero or above the cap."""
    refused(tmp_path, RawGGUF(kvs=[kv("", UINT32, 1)]), "a metadata key is 0 bytes long")
    refused(tmp_path, RawGGUF(kvs=[kv("k" * 65536, UINT32, 1)]), "is 65536 bytes long")
    opened(tmp_path, RawGGUF(kvs=[kv("k" * 65535, UINT32, 1)])).close()
    lie = string("key", 2**64 - 1) + struct.pack("<II", UINT32, 1)
    refused(tmp_path, RawGGUF(kvs=[lie]), f"is {2**64 - 1} bytes long")
    for length in (6, 2**31, 2**63, 2**64 - 1):
        value = kv_raw("key", STRING, string("hello", length))
        refused(tmp_path, RawGGUF(kvs=[value], alignment=1), f"'key' needs {length} bytes")
        words = kv_raw("words", ARRAY, struct.pack("<IQ", STRING, 1) + string("hello", length))
        assert refused(tmp_path, RawGGUF(kvs=[words], alignment=1), "'words'").key == "words"
    for size in (0, 64, 2**32):
        info = string("n" * min(size, 64), size) + tensor_info("", (1,), F32, 0)[8:]
        refused(tmp_path, RawGGUF(infos=[info], data=bytes(64)), f"a tensor name is {size} bytes long")


def test_s3_invalid_utf8_is_tolerated(tmp_path: Path) -> None:
    """S3: names and values that are not UTF-8 are read, stay distinct, and keep their bytes."""
    raw = RawGGUF(kvs=[kv(b"k\xff", STRING, b"v\xff"), kv(b"k\xfe", UINT8, 1)])
    raw.add_tensor(b"t\xff", (1,), F32, bytes(4))  # type: ignore[arg-type]
    raw.add_tensor(b"t\xfe", (1,), F32, bytes(4))  # type: ignore[arg-type]
    with opened(tmp_path, raw) as file:
        key = next(iter(file.metadata))
        assert key.encode("utf-8", "surrogateescape") == b"k\xff"
        assert (file.metadata[key], file.metadata.raw_str(key)) == ("v�", b"v\xff")
        assert [name.encode("utf-8", "surrogateescape") for name in file.tensors] == [b"t\xff", b"t\xfe"]


def test_s4_arrays(tmp_path: Path) -> None:
    """S4: element counts beyond the file, unknown element types, nested arrays, and bools that are neither."""
    for item in (UINT8, FLOAT64, STRING, BOOL):
        for count in (9, 2**33, 2**61, 2**64 - 1):
            array = kv_raw("a", ARRAY, struct.pack("<IQ", item, count) + bytes(8))
            refused(tmp_path, RawGGUF(kvs=[array], alignment=1), "'a'")
    nested = kv_raw("a", ARRAY, struct.pack("<IQIQ", ARRAY, 1, UINT8, 0))
    refused(tmp_path, RawGGUF(kvs=[nested]), "array of arrays")
    refused(tmp_path, RawGGUF(kvs=[kv_raw("a", ARRAY, struct.pack("<IQ", 13, 0))]), "unknown value type 13")
    refused(tmp_path, RawGGUF(kvs=[kv_raw("a", 99, bytes(8))]), "unknown value type 99")
    refused(tmp_path, RawGGUF(kvs=[kv_raw("a", BOOL, b"\2")]), "bool of value 2")
    refused(tmp_path, RawGGUF(kvs=[kv_raw("a", ARRAY, struct.pack("<IQ", BOOL, 2) + b"\1\2")]), "neither 0 nor 1")


def hostile_files() -> dict[str, bytes]:
    """Files of 1 MiB that try to make a reader allocate or loop."""
    size = 1 << 20
    empty_strings = kv_raw("a", ARRAY, struct.pack("<IQ", STRING, (size - 64) // 8))
    many_keys = [kv(f"{index:x}", UINT8, 0) for index in range(55000)]
    tensors = [tensor_info(f"{index:x}", (1,), F32, 0) for index in range(25000)]
    huge = [tensor_info("t", (2**31, 2**31), F32, 0)]
    files = {
        "kv count": RawGGUF(n_kv=2**40),
        "empty strings": RawGGUF(kvs=[empty_strings], data=bytes(size - 40)),
        "string count": RawGGUF(kvs=[kv_raw("a", ARRAY, struct.pack("<IQ", STRING, 2**40))]),
        "many keys": RawGGUF(kvs=many_keys),
        "many tensors": RawGGUF(infos=tensors),
        "huge tensor": RawGGUF(infos=huge),
    }
    return {name: raw.encode()[:size].ljust(size, b"\0") for name, raw in files.items()}


@pytest.mark.parametrize("name", hostile_files())
def test_s4_hostile_file_costs_little_memory(tmp_path: Path, name: str) -> None:
    """S4: opening any 1 MiB file allocates less than 64 MiB, refused or not."""
    path = tmp_path / "hostile.gguf"
    path.write_bytes(hostile_files()[name])
    tracemalloc.start()
    try:
        with suppress(GGUFError):
            GGUFFile(path).close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space of a child process")
def test_s4_resident_memory_stays_small(tmp_path: Path) -> None:
    """S4: a process that opens every hostile file grows by less than 64 MiB and takes a moment only."""
    for index, data in enumerate(hostile_files().values()):
        (tmp_path / f"{index}.gguf").write_bytes(data)
    script = (
        "import resource, sys; from iqrun.gguf import GGUFFile; from iqrun.errors import GGUFError\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for path in sys.argv[1:]:\n"
        "    try: GGUFFile(path).close()\n"
        "    except GGUFError: pass\n"
        "print(peak() - before)"
    )
    paths = [str(path) for path in sorted(tmp_path.glob("*.gguf"))]
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) < 64 << 10  # KiB


def test_s5_dimensions(tmp_path: Path) -> None:
    """S5: no dimension, more than four, a zero, and products beyond 2^63."""
    for n_dims in (0, 5, 9, 2**32 - 1):
        info = tensor_info("t", (1,) * min(n_dims, 9), F32, 0, n_dims)
        refused(tmp_path, RawGGUF(infos=[info], data=bytes(64)), f"'t' has {n_dims} dimensions")
    for shape in ((0,), (4, 0), (-1,), (-1, -1), (2**32, 2**31), (2**16,) * 4, (2**63,)):
        info = tensor_info("t", shape, F32, 0)
        refused(tmp_path, RawGGUF(infos=[info], data=bytes(64)), "'t' has the impossible shape")


def test_s6_type_ids(tmp_path: Path) -> None:
    """S6: ids that nobody uses are refused by number, ids whose size is unknown by name."""
    for type_id in (4, 5, 36, 37, 43, 99, 131, 159, 2**31, 2**32 - 1):
        info = tensor_info("t", (256,), type_id, 0)
        refused(tmp_path, RawGGUF(infos=[info], data=bytes(1024)), f"'t' cannot be read: .*{type_id}")


def test_s6_foreign_types_are_listed_without_format(tmp_path: Path) -> None:
    """S6: a type that iqrun cannot decode but knows the size of opens; its format is None."""
    raw = RawGGUF()
    raw.add_tensor("t", (256, 2), 16, bytes(132))
    with opened(tmp_path, raw) as file:
        info = file.tensors["t"]
        assert (info.type.name, info.format, info.n_bytes) == ("IQ2_XXS", None, 132)


def test_s6_sizes_agree_with_the_gguf_package() -> None:
    """S6: block sizes of all types that both know are the same."""
    shared = 0
    for ggml_type, (weights, size) in gguf.GGML_QUANT_SIZES.items():
        try:
            ours = find(int(ggml_type))
        except Exception:
            continue
        assert (weights, size, ggml_type.name) == (ours.block_weights, ours.block_bytes, ours.name)
        shared += 1
    assert shared >= 25


@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.block_weights > 1])
def test_s7_row_bytes_with_row_meta(tmp_path: Path, name: str) -> None:
    """S7: a tensor takes n_rows * (row_meta + blocks) bytes, one byte less is refused, and so is a broken block."""
    row = FORMATS[name]
    n_cols, n_rows = 2 * row.block_weights, 3
    n_bytes = n_rows * (row.row_meta_bytes + 2 * row.block_bytes)
    raw = RawGGUF(infos=[tensor_info("t", (n_cols, n_rows), row.id, 0)], data=bytes(n_bytes))
    with opened(tmp_path, raw) as file:
        assert n_bytes == file.tensors["t"].n_bytes
        assert (n_rows, row.row_bytes(n_cols)) == file.tensor_rows("t").shape
        assert row == file.tensors["t"].format
    raw.data = raw.data[:-1]
    refused(tmp_path, raw, "'t' ends at byte")
    bad = RawGGUF(infos=[tensor_info("t", (n_cols + 1, n_rows), row.id, 0)], data=bytes(2 * n_bytes))
    refused(tmp_path, bad, f"not a multiple of {row.block_weights}")


def test_s8_offsets(tmp_path: Path) -> None:
    """S8: offsets that are unaligned, past the end, that wrap around, or that overlap."""

    def two(first: int, second: int, size: int = 256) -> RawGGUF:
        infos = [tensor_info("a", (16,), F32, first), tensor_info("b", (16,), F32, second)]
        return RawGGUF(infos=infos, data=bytes(size))

    opened(tmp_path, two(64, 0)).close()
    refused(tmp_path, two(0, 65), "'b' begins at 65, not a multiple of 32")
    refused(tmp_path, two(0, 224), "'b' ends at byte")
    refused(tmp_path, two(0, 2**64 - 32), "'b' ends at byte")
    refused(tmp_path, two(0, 2**63), "'b' ends at byte")
    refused(tmp_path, two(0, 32), "'a' and 'b' overlap")
    refused(tmp_path, two(64, 64), "overlap")


def test_s9_alignment(tmp_path: Path) -> None:
    """S9: zero, not a power of two, tiny, enormous, and stored as another type."""
    for value in (0, 1, 4, 24, 33, 2**17, 2**31, 2**32 - 1):
        refused(tmp_path, RawGGUF(kvs=[kv("general.alignment", UINT32, value)]), f"general.alignment is {value}")
    for kind in (INT32, UINT64, FLOAT32):
        refused(tmp_path, RawGGUF(kvs=[kv("general.alignment", kind, 32)]), "stored as .*, but must be uint32")
    refused(tmp_path, RawGGUF(kvs=[kv_array("general.alignment", UINT32, [32])]), "array of uint32")


def test_s10_sizes_that_overflow(tmp_path: Path) -> None:
    """S10: sizes whose sum or product wraps around 2^64 are compared exactly."""
    shapes = [(2**42 + 1, 2**20), (2**62, 1), (2**60, 4), (2**63 - 1,)]
    for shape in shapes:
        refused(
            tmp_path, RawGGUF(infos=[tensor_info("t", shape, F32, 0)], data=bytes(64)), "'t' (ends at|has the imposs)"
        )
    infos = [tensor_info(f"t{i}", (2**61 + 16,), F32, 64 * i) for i in range(8)]
    refused(tmp_path, RawGGUF(infos=infos, data=bytes(1024)), "'t0' ends at byte")


def test_s11_duplicates(tmp_path: Path) -> None:
    """S11: a key or a tensor that occurs twice."""
    assert refused(tmp_path, RawGGUF(kvs=[kv("k", UINT8, 1), kv("k", UINT8, 1)]), "'k' occurs twice").key == "k"
    raw = RawGGUF()
    raw.add_tensor("t", (1,), F32, bytes(4))
    raw.add_tensor("t", (1,), F32, bytes(4))
    refused(tmp_path, raw, "'t' occurs twice")


def test_s12_array_element_types(tmp_path: Path) -> None:
    """S12: an array of the wrong element type is refused by the getter, naming both types."""
    kvs = [kv_array("tokens", INT32, [1]), kv_array("scores", STRING, ["x"]), kv_array("types", FLOAT32, [1.0])]
    with opened(tmp_path, RawGGUF(kvs=[*kvs, kv("one", UINT32, 1)])) as file:
        for key, kind in (("tokens", "str"), ("scores", "float"), ("types", "int"), ("one", "int")):
            with pytest.raises(GGUFError, match=f"'{key}' is .*, but must be an array of {kind}"):
                file.metadata.get_array(key, kind)  # type: ignore[call-overload]


def test_truncation_anywhere_is_noticed(tmp_path: Path) -> None:
    """S17: a file cut at any byte is refused at open, never read past its end."""
    whole = tiny_llama(tmp_path / "m.gguf", n_layer=1).read_bytes()
    path = tmp_path / "cut.gguf"
    header = len(whole) - 4 * 64  # the last tensor is ffn_norm
    for size in [*range(0, 400), *range(400, header, 997), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(GGUFError):
            GGUFFile(path)


_SEED_FILE = RawGGUF(
    kvs=[
        kv("general.alignment", UINT32, 32),
        kv("s", STRING, "text"),
        kv_array("words", STRING, ["a", "bc", ""]),
        kv_array("n", FLOAT32, [1.0, 2.0]),
        kv("b", BOOL, True),
    ]
)
_SEED_FILE.add_tensor("one", (256, 2), 138, bytes(220))
_SEED_FILE.add_tensor("two", (4, 2, 2), F32, bytes(64))


@settings(max_examples=n_random(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 415), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_header_is_read_or_refused(tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    """Whatever bytes of the header change, opening and reading everything gives values or GGUFError."""
    data = bytearray(_SEED_FILE.encode())
    for place, value in edits:
        data[place] = value
    path = tmp_path / "mutated.gguf"
    path.write_bytes(data)
    try:
        with GGUFFile(path) as file:
            for value in file.metadata.values():
                list(value) if isinstance(value, StringArray) else repr(value)
            for name, info in file.tensors.items():
                assert info.n_bytes == file.tensor_bytes(name).size
    except GGUFError:
        pass


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"])
def test_real_vocabularies_open(name: str) -> None:
    """The vocabulary files of the field: tokens, scores, types and merges as the reference reader has them."""
    path = SHARED / "tokenizers" / f"ggml-vocab-{name}.gguf"
    if not path.exists():
        pytest.skip("needs the shared vocabulary files")
    with GGUFFile(path) as file:
        tokens = file.metadata.get_array(keys.TOKENS, "str")
        types = file.metadata.get_array(keys.TOKEN_TYPES, "int")
        assert len(tokens) == len(types) > 30000
        assert list(tokens.iter_raw())[-1] == tokens.raw(len(tokens) - 1)
        assert dict(file.tensors) == {}
